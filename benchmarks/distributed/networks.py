"""The networks that the benchmarks of several ranks train, and their data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

__all__ = [
    "ClassifierModule",
    "ProcessShareSampler",
    "forward_batch",
    "make_loader",
    "normalized_net",
    "plain_net",
]

PIXELS = 12


def plain_net() -> nn.Module:
    """Return a network without batch norms, which would see other batches in one process."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def normalized_net() -> nn.Module:
    """Return a small network with batch norms."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(48, 10),
    )  # fmt: skip


class ClassifierModule(pl.LightningModule):
    def __init__(self, make_net: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = make_net()

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.net(images)
        return output

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def forward_batch(module: Any, batch: Any) -> Any:
    """Run the network on a batch: with this argument of the callback, no step is recorded."""
    return module(batch[0])


class ProcessShareSampler(Sampler[int]):
    """Gives item i to process i modulo their number; Lightning's own sampler would shuffle them."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        rank, processes = _rank_and_processes()
        return iter(range(rank, self.size, processes))

    def __len__(self) -> int:
        return self.size // _rank_and_processes()[1]


def _rank_and_processes() -> tuple[int, int]:
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def make_loader(count: int, size: int, dtype: torch.dtype, processes: int = 1) -> DataLoader[Any]:
    """Return ``count`` global batches, sorted such that each process gets its part of each."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, processes, size // processes, 3, PIXELS, PIXELS)
    images = torch.randn(shape, generator=generator, dtype=dtype)
    labels = torch.randint(10, shape[:3], generator=generator)
    if processes > 1:  # as `PartOfProcess` divides them
        images, labels = images.transpose(1, 2), labels.transpose(1, 2)
    data = TensorDataset(images.reshape(-1, 3, PIXELS, PIXELS), labels.reshape(-1))
    return DataLoader(data, batch_size=size // processes, sampler=ProcessShareSampler(len(data)))
