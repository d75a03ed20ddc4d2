"""Trains a network until a budget of multiply-accumulates is spent, and steers it meanwhile.

The budget is that of the forwards of all training batches. A whole training step costs about three
times as much, whatever the shape is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from quiet_training import quiet_training
from shape_networks import Widths, group_widths, macs_per_image, new_network
from study_images import Images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from revacnn_lightning import LoopRun, monitor

__all__ = ["BATCH_SIZE", "RATE", "BudgetTraining", "Steering", "TrainedNetwork", "train_to_budget"]

BATCH_SIZE = 64
RATE = 1e-3  # of Adam, its default
EVALUATIONS = 12  # of the accuracy, at equal shares of the budget


class BudgetTraining(NamedTuple):
    """What the trainings that are compared have in common.

    Attributes:
        architecture: of the network.
        images: in the same order for all.
        budget: multiply-accumulates.
        seed: of the weights, and of the order.
    """

    architecture: str
    images: Images
    budget: float
    seed: int

    def new_network(self, widths: Widths) -> nn.Sequential:
        torch.manual_seed(self.seed)
        return new_network(self.architecture, self.images.shape, widths)

    def widths(self, network: nn.Module) -> Widths:
        return group_widths(network, self.architecture)

    def macs_per_image(self, widths: Widths) -> int:
        """Return the multiply-accumulates of one image."""
        return macs_per_image(self.architecture, self.images.shape, widths)


class Steering:
    """Steers a training. This one leaves it as it is."""

    def begin(self, run: LoopRun, network: nn.Module) -> None:
        """Prepare, before the first batch."""

    def before_batch(self, run: LoopRun, network: nn.Module, spent: float) -> None:
        """Submit what is due.

        Args:
            run: of the training.
            network: that is trained.
            spent: multiply-accumulates so far.
        """

    def end(self) -> None:
        """Raise what went wrong."""


class TrainedNetwork(NamedTuple):
    """A trained network.

    Attributes:
        network: with its last shape.
        curve: (share of the budget, accuracy), in order.
        batches: that it was trained with.
        seconds: of training and steering.
    """

    network: nn.Module
    curve: list[tuple[float, float]]
    batches: int
    seconds: float

    def to_result(self, training: BudgetTraining) -> dict[str, Any]:
        widths = training.widths(self.network)
        return {
            "accuracy": self.curve[-1][1], "widths": list(widths),
            "macs": training.macs_per_image(widths),
            "batches": self.batches, "seconds": round(self.seconds, 2), "curve": self.curve,
        }  # fmt: skip


def train_to_budget(
    training: BudgetTraining, widths: Widths, steering: Steering | None = None
) -> TrainedNetwork:
    """Train a new network by Adam until the budget is spent."""
    steering = steering or Steering()
    network, budget = training.new_network(widths), training.budget
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    spent, curve, seconds = 0, [], 0.0
    # Without a limit, what is recorded does not depend on how fast the machine is.
    with quiet_training(), monitor(network, optimizer, max_overhead=None) as run:
        steering.begin(run, network)
        for batch in _batches(training.images.train, training.seed):
            if spent >= budget:
                break
            start = time.perf_counter()
            steering.before_batch(run, network, spent)
            with run.batch(batch):
                run.log(loss=_step(network, run.optimizers[0], batch))
            seconds += time.perf_counter() - start
            spent += training.macs_per_image(training.widths(network)) * BATCH_SIZE
            if spent * EVALUATIONS >= budget * (len(curve) + 1):
                accuracy = _accuracy(network, training.images.test)
                curve.append((round(spent / budget, 4), accuracy))
    steering.end()
    return TrainedNetwork(network, curve, run.step, seconds)


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: list[Tensor]) -> Tensor:
    images, classes = batch
    loss = F.cross_entropy(network(images), classes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def _batches(data: TensorDataset, seed: int) -> Iterator[list[Tensor]]:
    """Yield whole batches without an end, each epoch in a new order."""
    images, classes = data.tensors
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(len(images), generator=generator).split(BATCH_SIZE):
            if len(rows) == BATCH_SIZE:
                yield [images[rows], classes[rows]]


@torch.no_grad()
def _accuracy(network: nn.Module, test: TensorDataset) -> float:
    images, classes = test.tensors
    network.eval()
    found = torch.cat([network(some).argmax(1) for some in images.split(500)])
    network.train()
    return round(float((found == classes).float().mean()), 4)
