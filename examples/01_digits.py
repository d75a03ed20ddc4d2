"""Train a small CNN with PyTorch Lightning and one more callback: `ReVACNN()`.

revacnn launch examples/01_digits.py          train and open the viewer

python examples/01_digits.py                  train only; run `revacnn view` in another terminal
python examples/01_digits.py --data photos    color images, also without a download
python examples/01_digits.py --data-dir DIR   your images: DIR/train/<class>/*, DIR/test/<class>/*
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import OrderedDict
from pathlib import Path

import pytorch_lightning as pl
import torch
from sources import SOURCES, Source, folder
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from revacnn_lightning import ReVACNN


class SmallCNN(pl.LightningModule):
    """Three convolutions, as in the network of the original ReVACNN, and a linear classifier."""

    def __init__(self, channels: int, classes: int, learning_rate: float = 0.02) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, 16, kernel_size=5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(16, 32, kernel_size=3, padding=1),
                bn2=nn.BatchNorm2d(32),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 32, kernel_size=3, padding=1),
                bn3=nn.BatchNorm2d(32),
                relu3=nn.ReLU(),
                pool3=nn.AdaptiveAvgPool2d(2),
            )
        )
        self.classifier = nn.Linear(32 * 2 * 2, classes)

    def forward(self, images: Tensor) -> Tensor:  # (B, channels, H, W) -> (B, classes)
        return self.classifier(self.features(images).flatten(1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        self.log("val_loss", functional.cross_entropy(logits, labels), prog_bar=True)
        self.log("val_acc", (logits.argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(
            self.parameters(), lr=self.learning_rate, momentum=0.9, weight_decay=5e-4
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class RateLimit(pl.Callback):
    """Limits the number of batches per second, so that a person can follow the training."""

    def __init__(self, batches_per_second: float) -> None:
        self.seconds = 1 / batches_per_second
        self.next_batch = 0.0

    def on_train_batch_end(self, *args: object, **kwargs: object) -> None:
        now = time.monotonic()
        time.sleep(max(0.0, self.next_batch - now))
        self.next_batch = max(self.next_batch, now) + self.seconds


def main() -> None:
    options = parse_arguments()
    source: Source = folder(options.data_dir) if options.data_dir else SOURCES[options.data]()
    pl.seed_everything(options.seed, verbose=False)
    train = DataLoader(source.train, options.batch_size, shuffle=True, drop_last=True)
    validation = DataLoader(source.validation, 256)
    # The data is small or in memory, so worker processes would only delay the start.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")

    rate_limit = [RateLimit(options.pace)] if options.pace > 0 else []
    if rate_limit and not options.data_dir:
        # A network this small hardly gains from a second thread, which would compete with the
        # browser for a processor in every layer.
        torch.set_num_threads(1)
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        max_steps=options.max_steps,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        callbacks=[ReVACNN(class_names=source.class_names), *rate_limit],
    )
    print(f"Training on {source.name}: {len(train)} batches of {options.batch_size} per epoch")
    trainer.fit(SmallCNN(source.channels, source.classes), train, validation)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=SOURCES, default="digits")
    parser.add_argument(
        "--data-dir", type=Path, help="folder with train/<class>/* and test/<class>/*"
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--max-steps", type=int, default=-1, help="-1: no limit")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pace", type=float, default=20, help="batches per second; 0: full speed")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
