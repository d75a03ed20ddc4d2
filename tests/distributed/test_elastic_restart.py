"""torchrun starts a training again after one of its processes has ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributed import elastic_training
from tests.distributed.test_two_processes import reports, run


@pytest.mark.slow
def test_a_restarted_training_resumes_the_edited_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Else gloo finds the addresses of the ended processes in the store, also without Lightning.
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    script = ["-m", "tests.distributed.elastic_training", str(tmp_path)]
    run(tmp_path, "torch.distributed.run", *options, *script)
    edits = len(elastic_training.EDITS)
    first, second = reports(tmp_path)
    for rank, report in enumerate((first, second)):
        assert report["restarts"] == 1  # the second process was killed
        assert report["versions"] == [edits, edits + 1]
        assert report["different"] == []
        assert report["width"] == 4  # two filters more, and two less
        assert report["step"] == first["step"] < elastic_training.BATCHES
        loaded = json.loads((tmp_path / f"loaded{rank}.json").read_text())
        assert loaded["tensors"] > 30
        assert loaded["different"] == 0  # weights and optimizer state are those of the checkpoint
