"""A training in one process whose parameters FSDP2 splits all the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import distributed

from revacnn_lightning import AddFilters, Freeze, ReVACNN
from tests.distributed.scripted_training import loader, make_trainer
from tests.distributed.split_training import SplitNet

BATCHES = 40
EDITS = [AddFilters("conv1", 2), Freeze("conv1", [0])]


class Requests(pl.Callback):
    def __init__(self, revacnn: ReVACNN) -> None:
        self.revacnn, self.replies = revacnn, []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        if index in (5, 15):
            self.replies.append(self.revacnn.steer(EDITS[len(self.replies)]))


@pytest.fixture(autouse=True)
def _no_process_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "environ", dict(os.environ))  # Lightning adds the address of the group
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 of this torch needs a GPU"
)
@pytest.mark.filterwarnings("ignore")  # of FSDP2 on CPUs
def test_a_forward_of_ours_ended_the_training(tmp_path: Path) -> None:
    """FSDP2 no longer gathered the parameters after a forward between two batches."""
    revacnn = ReVACNN()
    requests = Requests(revacnn)
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    trainer = make_trainer(tmp_path, strategy, [revacnn, requests], devices=1)
    trainer.fit(SplitNet(), loader(BATCHES, 4))
    assert trainer.global_step == BATCHES
    refused, frozen = [reply.reply for reply in requests.replies]
    assert "splits the parameters" in refused.reason
    assert not hasattr(frozen, "reason"), frozen
