"""The examples run, and say in one line what is wrong with the data they are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "01_digits.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
    )


def make_folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for index in range(8):
                pixels = rng.integers(0, 255, (40, 48, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return root


@pytest.mark.parametrize("data", ["digits", "photos"])
def test_it_trains_on_data_that_needs_no_download(data: str):
    done = run("--data", data, "--max-steps", "6", "--pace", "0", "--batch-size", "16")
    assert done.returncode == 0, done.stderr
    assert "watch this run with `revacnn view`" in done.stderr


def test_it_trains_on_any_image_folder(tmp_path: Path):
    folder = make_folder(tmp_path / "pets")
    done = run("--data-dir", str(folder), "--max-steps", "3", "--pace", "0", "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    assert "Training on pets" in done.stdout


@pytest.mark.parametrize("emptied", ["missing", "no test", "no images"])
def test_a_missing_or_empty_folder_is_one_line_that_says_what_was_looked_for(
    tmp_path: Path, emptied: str
):
    folder = tmp_path / "pets"
    looked_for = folder / "train"
    if emptied != "missing":
        make_folder(folder)
    if emptied == "no test":
        (folder / "test").rename(folder / "validation")
        looked_for = folder / "test"
    if emptied == "no images":
        for file in (folder / "train" / "dog").iterdir():
            file.unlink()
    done = run("--data-dir", str(folder))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"looked for {looked_for}/<class>/*.jpg" in done.stderr
