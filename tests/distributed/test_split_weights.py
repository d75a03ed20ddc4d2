"""A training in two processes whose weights FSDP2 splits among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributed import frozen_training, resumed_freezing, split_training
from tests.distributed.test_two_processes import run


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("fsdp", ({"conv1": [0, 1], "conv2": [0, 1]}, {"conv1": [2, 3], "conv2": [2]})),
        # Tensor parallelism splits the linear layers only, whose outputs are not observed.
        pytest.param(
            "tensor", ({"conv1": [0, 1, 2, 3], "conv2": [0, 1, 2]},) * 2, marks=pytest.mark.slow
        ),
    ],
)
def test_split_weights_are_observed_and_structural_edits_refused(
    kind: str, own: tuple[dict[str, list[int]], ...], tmp_path: Path
):
    run(tmp_path, "tests.distributed.split_training", kind, str(tmp_path))
    first, second = [json.loads((tmp_path / f"process{i}.json").read_text()) for i in range(2)]
    for report in (first, second):
        assert not report["has_failed"]
        assert max(report["errors"].values()) < 1e-4, report["errors"]
        # The recorder of ReVACNN begins in the middle, beside that of the test.
        assert len(report["lost"]) <= (kind == "tensor")
        assert report["rate"] == split_training.RATE.value
        assert report["step"] == first["step"] < split_training.BATCHES  # both have stopped
    assert (first["own"], second["own"]) == own
    assert first["ranks"] == [2]
    assert len(first["norms"]) == 7
    assert all(norm > 0 for norm in first["norms"])  # no NaN: each filter is that of one rank
    assert first["differing"] == []
    kinds = [each[:2] for each in first["outcomes"]]
    assert kinds == [
        ["AddFilters", "Refused"],
        ["SetHyperparameter", "Done"],
        ["ControlRun", "Done"],
        ["ControlRun", "Done"],
        ["ControlRun", "Done"],
    ]
    assert "ModelParallelStrategy splits the parameters" in first["outcomes"][0][2]


def test_filters_of_split_weights_are_frozen_as_in_one_process(tmp_path: Path):
    run(tmp_path, "tests.distributed.frozen_training", str(tmp_path))
    first, second = [json.loads((tmp_path / f"process{i}.json").read_text()) for i in range(2)]
    edits = len(frozen_training.EDITS)
    for report in (first, second):
        assert report["moved"] == []
        assert report["version"] == edits
        assert report["frozen"] == {"conv1": [0, 3], "conv2": []}
        assert report["step"] == first["step"] < frozen_training.BATCHES  # both have stopped
    assert [kind for kind, *_ in first["outcomes"]] == [*["Applied"] * edits, "Refused"]
    assert first["difference"] < 1e-6
    # ReVACNN has failed in the second process: the refusal and the list of changes say how.
    reason = first["outcomes"][-1][1]
    assert f"internal error of ReVACNN in rank 1: RuntimeError: {frozen_training.ERROR}" in reason
    assert any(frozen_training.ERROR in text for text in first["alerts"])


@pytest.mark.slow
def test_a_resumed_run_keeps_filters_of_split_weights_frozen(tmp_path: Path):
    run(tmp_path, "tests.distributed.resumed_freezing", str(tmp_path))
    edits = len(resumed_freezing.EDITS)
    for rank in range(2):
        report = json.loads((tmp_path / f"process{rank}.json").read_text())
        assert report["first"]["frozen"] == resumed_freezing.FROZEN
        assert not any(report["loaded"].values()), report["loaded"]  # all is that of the checkpoint
        # The resumed run continues the history and the journal of the first one.
        assert report["start"]["frozen"] == resumed_freezing.FROZEN
        assert report["start"]["version"] == edits
        assert report["end"]["frozen"] == resumed_freezing.UNDONE
        assert report["end"]["version"] == edits + 1
        for name, rows in report["moved"].items():
            layer = name.partition(".")[0].replace("norm", "conv1")
            frozen = resumed_freezing.FROZEN.get(layer, [])
            assert not set(rows) & set(frozen), name
            assert rows or layer == "conv2", name
    first = json.loads((tmp_path / "process0.json").read_text())
    assert first["start"]["step"] == first["first"]["step"] > 0
