"""The examples train, and report invalid data in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "01_digits.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_rule_edits_a_running_training_until_it_ends():
    python = [sys.executable, "-u"]
    train = [*python, str(EXAMPLES / "01_digits.py"), "--pace", "0", "--epochs", "100000"]
    rule = [*python, str(EXAMPLES / "02_grow_and_prune.py"), "--every", "10"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with (
        subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as training,
        subprocess.Popen(rule, **pipes) as script,
    ):
        lines = [next(script.stdout)]
        while not any("Add" in line for line in lines):
            lines.append(next(script.stdout))
        training.kill()
        lines += script.stdout
        assert script.wait(timeout=60) == 0, "".join(lines)
    assert lines[0].startswith("Attached to <Run")
    assert "parameters" in next(line for line in lines if "Add" in line)
    assert lines[-1].startswith("Ended: <Run")


def make_folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(8):
                pixels = rng.integers(0, 255, (40, 48, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.mark.parametrize("data", ["digits", "photos"])
def test_trains_without_a_download(data: str):
    done = run_example("--data", data, "--max-steps", "6", "--pace", "0", "--batch-size", "16")
    assert done.returncode == 0, done.stderr
    assert "`revacnn view`" in done.stderr


def test_trains_on_an_image_folder(tmp_path: Path):
    folder = make_folder(tmp_path / "pets")
    done = run_example(
        "--data-dir", str(folder), "--max-steps", "3", "--pace", "0", "--batch-size", "4"
    )
    assert done.returncode == 0, done.stderr
    assert "Training on pets" in done.stdout


@pytest.mark.parametrize("fault", ["no folder", "no test folder", "a class without images"])
def test_missing_images_exit_with_one_line_that_names_the_path(tmp_path: Path, fault: str):
    folder = tmp_path / "pets"
    expected = folder / "train"
    if fault != "no folder":
        make_folder(folder)
    if fault == "no test folder":
        (folder / "test").rename(folder / "validation")
        expected = folder / "test"
    if fault == "a class without images":
        for file in (folder / "train" / "dog").iterdir():
            file.unlink()
    done = run_example("--data-dir", str(folder))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"No images found in {expected}/<class>/*.jpg" in done.stderr
