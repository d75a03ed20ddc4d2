"""Train a small CNN with Lightning Fabric, monitored and edited with `revacnn_lightning.monitor`.

python examples/04_fabric.py                  train; run `revacnn view` in another terminal
"""

from __future__ import annotations

import argparse

import torch
from lightning_fabric import Fabric  # or: from lightning.fabric import Fabric
from sources import digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import revacnn_lightning


def main() -> None:
    options = parse_arguments()
    fabric = Fabric(accelerator="auto", devices=1, precision=options.precision)
    fabric.launch()
    fabric.seed_everything(0, verbose=False)
    source = digits()
    train = DataLoader(source.train, batch_size=32, shuffle=True, drop_last=True)
    train = fabric.setup_dataloaders(train)

    model = nn.Sequential(
        nn.Conv2d(source.channels, 16, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, source.classes),
    )
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=2e-3))

    # After setup: the run gets the model and the optimizer that the loop uses.
    with revacnn_lightning.monitor(model, optimizer, class_names=source.class_names) as run:
        for epoch in run.epochs(options.epochs):
            for images, labels in run.batches(train):
                loss = functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                fabric.backward(loss)
                optimizer.step()
                run.log(loss=loss)
                if run.step + 1 == options.max_steps:
                    return
            fabric.print(f"Epoch {epoch}: loss {loss.item():.3f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=-1, help="-1: no limit")
    parser.add_argument("--precision", default="32-true", help="such as bf16-mixed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
