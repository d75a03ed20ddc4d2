"""Edits and commands in a training of two processes with DistributedDataParallel and gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from tests.distributed import pruned_training, scripted_training
from tests.import_graph import ROOT


def run(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, text=True,
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"process{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    "strategy",
    [
        "ddp",
        pytest.param("ddp_spawn", marks=pytest.mark.slow),
        pytest.param("ddp_notebook", marks=pytest.mark.slow),
        pytest.param("ddp_fork, static graph in buckets", marks=pytest.mark.slow),
        pytest.param("ddp_fork, unused parameters", marks=pytest.mark.slow),
    ],
)
def test_both_processes_do_what_the_first_one_is_asked(strategy: str, tmp_path: Path):
    run(tmp_path, "tests.distributed.scripted_training", strategy, str(tmp_path))
    first, second = reports(tmp_path)
    outcomes = [each[:2] for each in first["outcomes"]]
    assert outcomes == [
        ["AddFilters", "Applied"],
        ["ScaleLearningRate", "Applied"],
        ["Freeze", "Applied"],
        ["RemoveFilters", "Applied"],
        ["Undo", "Applied"],
        ["Redo", "Applied"],
        ["InsertLayer", "Applied"],
        ["SetHyperparameter", "Done"],
        ["SetGradientClipping", "Done"],
        ["SetGradientClipping", "Refused"],  # the second process could not
        ["AddFilters", "Refused"],  # the second process could not
        ["ControlRun", "Done"],
        ["ControlRun", "Done"],
        ["RemoveFilters", "Applied"],
        ["AddFilters", "Refused"],  # the processes were out of step
        ["ControlRun", "Done"],
    ]
    reasons = [each[2] for each in first["outcomes"] if each[1] == "Refused"]
    assert all("rank 1: " in reason for reason in reasons[:2])
    assert "overrides configure_gradient_clipping" in reasons[0]
    assert "this process cannot" in reasons[1]
    assert "rank 1 differ from those of rank 0" in reasons[2]
    for report in (first, second):
        assert all(each >= scripted_training.OUT_OF_STEP for each in report["different"])
        assert report["rate"] == scripted_training.RATE.value
        assert report["clipping"] == [scripted_training.CLIPPING.value, "norm"]
        assert report["width"] == 3
        assert report["step"] == first["step"] < scripted_training.BATCHES  # both have stopped
    assert 2 in first["ranks"]  # the viewer has got means over both
    assert first["differing"] == [1]  # since a weight of it has changed by itself
    assert len(list((tmp_path / "revacnn").glob("*.ckpt"))) == 1


def test_all_processes_undo_an_edit_after_an_internal_error_and_resume_bit_for_bit(tmp_path: Path):
    run(tmp_path, "tests.distributed.scripted_training", "ddp_fork", str(tmp_path))
    first, second = reports(tmp_path)
    assert first["outcomes"][-2:] == [
        ["RemoveFilters", "Applied", "", ANY],
        ["Undo", "Applied", "", ANY],
    ]
    for report in (first, second):
        assert report["different"] == []
        assert report["width"] == 4  # three filters, and the one that was removed last
        assert report["step"] == scripted_training.FEW_BATCHES  # training continues
    # Resumed from a checkpoint of the edited network, both have all of its tensors bit for bit.
    for rank in range(2):
        loaded = json.loads((tmp_path / f"loaded{rank}.json").read_text())
        assert loaded["tensors"] > 30
        assert loaded["different"] == 0


def test_a_pruning_to_a_budget_removes_the_same_filters_in_both_processes(tmp_path: Path):
    run(tmp_path, "tests.distributed.pruned_training", str(tmp_path))
    first, second = reports(tmp_path)
    whole = sum(each.numel() for each in scripted_training.Net().parameters())
    assert first["edits"] > 0, first["note"]
    for report in (first, second):
        assert report["different"] == []
        assert report["widths"] == first["widths"]
        assert report["parameters"] <= pruned_training.SHARE * whole
        assert report["step"] == first["step"] < pruned_training.BATCHES  # both have stopped
