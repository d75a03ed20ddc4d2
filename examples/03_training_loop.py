"""Train a small CNN in a loop of your own, monitored and edited with `revacnn_lightning.monitor`.

python examples/03_training_loop.py           train; run `revacnn view` in another terminal
"""

from __future__ import annotations

import argparse

import torch
from sources import digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import revacnn_lightning


def main() -> None:
    options = parse_arguments()
    torch.manual_seed(0)
    source = digits()
    train = DataLoader(source.train, batch_size=32, shuffle=True, drop_last=True)
    validation = DataLoader(source.validation, batch_size=256)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = small_cnn(source.channels, source.classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)

    with revacnn_lightning.monitor(
        model,
        optimizer,
        state={"scheduler": scheduler},
        validation=validation,
        class_names=source.class_names,
    ) as run:
        for epoch in run.epochs(options.epochs):
            model.train()
            for images, labels in run.batches(train):
                loss = functional.cross_entropy(model(images.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
                if run.step + 1 == options.max_steps:
                    return
            scheduler.step()
            run.log(val_acc=accuracy(model, validation, device))
            print(f"Epoch {epoch}: {model[0].out_channels} filters in the first layer")


def small_cnn(channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, classes),
    )


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader, device: str) -> float:
    model.eval()
    correct = sum((model(x.to(device)).argmax(1).cpu() == y).sum().item() for x, y in loader)
    return correct / len(loader.dataset)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=-1, help="-1: no limit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
