"""A training that saves a checkpoint again and again, and resumes from it if there is one.

``python -m benchmarks.resumed_training FOLDER``; kill it and start it again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.training_loops import Classifier, convnet
from revacnn_lightning import ReVACNN

SAVE_BATCHES = 20
BATCH_SECONDS = 0.02


class SlowClassifier(Classifier):
    """A small classifier that trains about 40 batches per second."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        time.sleep(BATCH_SECONDS)
        return super().training_step(batch, index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    images = torch.randn(400, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(images, torch.arange(400) % 10), batch_size=4)
    saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=SAVE_BATCHES)
    trainer = pl.Trainer(
        max_epochs=10_000, callbacks=[saving, ReVACNN()], accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    last = folder / "last.ckpt"
    trainer.fit(SlowClassifier(convnet()), data, ckpt_path=last if last.exists() else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
