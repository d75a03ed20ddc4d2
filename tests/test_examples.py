"""The examples train, and report invalid data in one line."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from revacnn_lightning import AddFilters, LoopRun, monitoring

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run an example as ``python 01_digits.py ...`` does, in this process: torch is imported."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(*arguments: str, file: str = "01_digits.py") -> None:
        monkeypatch.setattr(sys, "argv", [file, *arguments])
        runpy.run_path(str(EXAMPLES / file), run_name="__main__")

    return run


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


class EditAtStart(LoopRun):
    """A run that gets two filters more as soon as it is known how the loop uses the network."""

    runs: ClassVar[list[EditAtStart]] = []

    def __enter__(self) -> EditAtStart:
        super().__enter__()
        self.runs.append(self)
        self.reply = self.steer(AddFilters("0", 2))
        return self


@pytest.mark.parametrize(
    ("file", "precision"),
    [("03_training_loop.py", None), ("04_fabric.py", "32-true"), ("04_fabric.py", "bf16-true")],
)
def test_a_loop_without_a_trainer_is_monitored_and_edited(
    file: str,
    precision: str | None,
    run_example: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(monitoring, "LoopRun", EditAtStart)
    options = [] if precision is None else ["--precision", precision]
    run_example("--max-steps", "3", *options, file=file)
    run = EditAtStart.runs.pop()
    assert "`revacnn view`" in caplog.text
    assert run.step == 3
    assert run.reply.result().step == 1
    [optimizer] = run.optimizers
    assert optimizer.param_groups[0]["params"][0].shape[0] == 18


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
def test_trains_without_a_download(
    data: str, run_example: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO"):
        run_example("--data", data, "--max-steps", "6", "--pace", "0", "--batch-size", "16")
    assert "`revacnn view`" in caplog.text


def test_trains_on_an_image_folder(
    tmp_path: Path, run_example: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    folder = make_folder(tmp_path / "pets")
    run_example("--data-dir", str(folder), "--max-steps", "3", "--pace", "0", "--batch-size", "4")
    assert "Training on pets" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["no folder", "no test folder", "a class without images"])
def test_missing_images_exit_with_one_line_that_names_the_path(
    tmp_path: Path, fault: str, run_example: Callable[..., None]
):
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
    with pytest.raises(SystemExit) as ended:  # Python prints its text and exits with 1
        run_example("--data-dir", str(folder))
    text = str(ended.value.code)
    assert "\n" not in text
    assert f"No images found in {expected}/<class>/*.jpg" in text
