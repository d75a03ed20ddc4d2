"""Small networks and trainings for tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from revacnn_lightning.runtime.session import Session

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0),
}


class TwoConvs(pl.LightningModule):
    """conv1 -> relu1 -> conv2 -> relu2 -> flatten -> linear, on 6x6 images, in float64."""

    def __init__(self, optimizer: str = "adamw") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.optimizer = optimizer
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 3, 3)
        self.relu2 = nn.ReLU()
        self.linear = nn.Linear(3 * 4 * 4, 2)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu2(self.conv2(self.relu1(self.conv1(images))))
        return self.linear(hidden.flatten(1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self(images), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer](self.parameters())


class NanLoss(TwoConvs):
    """Its loss is NaN from batch 6 on."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if batch_idx >= 6 else loss


def batches(count: int = 12, size: int = 4) -> DataLoader:
    """Return ``count`` batches of random float64 images, always the same."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count * size, 1, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(2, (count * size,), generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=size)


def fit(
    model: pl.LightningModule,
    callbacks: Sequence[pl.Callback] = (),
    *,
    count: int = 12,
    validate: bool = False,
    resume: Path | None = None,
    record_all: bool = True,
    data: DataLoader | None = None,
    **options: Any,
) -> pl.Trainer:
    """Train one epoch of ``count`` batches, or of ``data``, quietly, on the CPU; or its rest.

    With ``record_all`` every batch is recorded, as if a viewer were attached.
    """
    defaults: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
        "limit_val_batches": 1.0 if validate else 0,
    }
    trainer = pl.Trainer(**{**defaults, **options})
    with pytest.MonkeyPatch.context() as patch:
        if record_all:
            patch.setattr(Session, "_needs_recording", lambda _: True)
        trainer.fit(model, batches(count) if data is None else data, batches(2), ckpt_path=resume)
    return trainer


class At(pl.Callback):
    """Calls ``action(trainer, module)`` before the batch with this index begins, once."""

    def __init__(self, batch_idx: int, action: Callable[[pl.Trainer, Any], None]) -> None:
        self.batch_idx, self.action = batch_idx, action
        self.done = False

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if batch_idx == self.batch_idx and not self.done:
            self.done = True
            self.action(trainer, pl_module)
