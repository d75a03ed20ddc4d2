"""Trainings whose batch norms average over all processes, on CPUs and on GPUs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed import synchronized_training
from tests.distributed.test_two_processes import run
from tests.import_graph import ROOT

MODULE = "tests.distributed.synchronized_training"
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run_nodes(where: str, folder: Path) -> None:
    """Start two processes as a cluster does: each is the only one of its node."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    command = [sys.executable, "-m", MODULE, where, str(folder)]
    nodes = [
        subprocess.Popen(
            command, cwd=ROOT, env={**environment, "NODE_RANK": str(rank)}, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for node in nodes:
            _, errors = node.communicate(timeout=300)
            assert node.returncode == 0, errors[-6000:]
    finally:
        for node in nodes:
            node.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        "two processes",
        "two nodes",
        pytest.param("all GPUs", marks=NEEDS_GPU),
        pytest.param("two nodes on one GPU", marks=NEEDS_GPU),
    ],
)
def test_synchronized_norms_are_edited_as_those_of_one_process(where: str, tmp_path: Path):
    if "nodes" in where:
        run_nodes(where, tmp_path)
    else:
        run(tmp_path, MODULE, where, str(tmp_path))
    files = sorted(tmp_path.glob("process*.json"))
    assert len(files) == (torch.cuda.device_count() if where == "all GPUs" else 2)
    reports: list[dict[str, Any]] = [json.loads(file.read_text()) for file in files]
    first = reports[0]
    assert first["outcomes"] == [["Applied", ""]] * len(synchronized_training.EDITS)
    for report in reports:
        assert report["different"] == []
        assert report["step"] == first["step"] < synchronized_training.BATCHES  # all have stopped
    assert first["names"][0] == first["names"][1]
    assert first["shapes"] == []
    assert first["difference"] < 1e-6
