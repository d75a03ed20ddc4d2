"""Trains a small residual network, for tests that edit it in the page: ``python -m ...``."""

from __future__ import annotations

import time

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from revacnn_lightning import ReVACNN

SECONDS_PER_BATCH = 0.03  # leaves time to the page


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(x + inner)


class ResidualNet(pl.LightningModule):
    """A stem, two residual blocks, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.block1, self.block2 = Block(8), Block(8)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.block2(self.block1(self.stem(images))).mean((2, 3))
        scores: Tensor = self.head(features)
        return scores

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        time.sleep(SECONDS_PER_BATCH)
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = TensorDataset(torch.randn(64, 1, 12, 12), torch.randint(4, (64,)))
    trainer = pl.Trainer(
        max_epochs=-1, accelerator="cpu", callbacks=[ReVACNN()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(ResidualNet(), DataLoader(data, batch_size=8))


if __name__ == "__main__":
    main()
