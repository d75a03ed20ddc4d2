"""Growing for `06_steering_pays.py`: a narrow network gets filters where the gain is highest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from shape_networks import WIDTHS
from shape_training import (
    BATCH_SIZE,
    RATE,
    BudgetTraining,
    Steering,
    TrainedNetwork,
    train_to_budget,
)
from torch import nn

from revacnn_lightning import AddFilters, ControlRun, EditRefusedError, LoopRun, Run, attach
from revacnn_lightning.protocol.requests import InspectGrowth

__all__ = ["GROW_ARMS", "train_grow_arms"]

GROW_ARMS = ("grown", "final shape", "half as wide", "random filters", "rebuilt optimizer")
NARROW = 4  # the first shape has one filter for so many of the reference
ADDED = 4  # filters at a time: as many as have a direction
GROWTHS = 8  # at most
LAST = 0.5  # share of the budget at the last one
KNOWN_AFTER = 4  # batches from the request to the gains: a step is recorded, then traced, then used


class Growth(NamedTuple):
    """Filters that were added to a layer, when so many multiply-accumulates were spent."""

    spent: float
    layer: str


class GrowByGain(Steering):
    """Grows a network as a script does that is attached to the run, between two batches.

    The script lets the training pause at each growth, so that each run with a seed is the same.

    Args:
        training: of the network.
        limit: multiply-accumulates of an image; a network that has so many grows no further.

    Attributes:
        growths: so far.
    """

    def __init__(self, training: BudgetTraining, limit: int) -> None:
        self.training = training
        self.limit = limit
        self.growths: list[Growth] = []
        self._pool = ThreadPoolExecutor(1)
        self._script: Future[None] | None = None

    def begin(self, run: LoopRun, network: nn.Module) -> None:
        self.training.macs_per_image(
            self.training.widths(network)
        )  # later, another thread needs it
        run.steer(ControlRun("step"))  # one batch, then a pause
        self._script = self._pool.submit(self._grow, run, network)

    def end(self) -> None:
        assert self._script is not None
        self._script.result()
        self._pool.shutdown()

    def _grow(self, loop: LoopRun, network: nn.Module) -> None:
        try:
            self._grow_step_by_step(loop, network)
        finally:
            with suppress(EditRefusedError):  # the training has ended
                loop.steer(ControlRun("resume"))

    def _grow_step_by_step(self, loop: LoopRun, network: nn.Module) -> None:
        training, spent = self.training, 0
        with attach(loop.connection_file) as run:
            for index in range(GROWTHS):
                macs = training.macs_per_image(training.widths(network))
                if macs >= self.limit:
                    return
                each = macs * BATCH_SIZE
                spent = spent or each  # of the first batch
                due = training.budget * LAST * (index + 1) / GROWTHS
                count = max(KNOWN_AFTER + 1, math.ceil((due - spent) / each))
                run.train(count - KNOWN_AFTER)
                layer = _train_and_choose(run)
                spent += count * each
                run.apply(AddFilters(layer, ADDED, directed=True))
                self.growths.append(Growth(spent, layer))


def _train_and_choose(run: Run) -> str:
    """Train some batches of a paused run and return the layer with the highest gain."""
    run.command(InspectGrowth())  # so that one of these batches is recorded
    run.train(KNOWN_AFTER)
    gains = run.growth_gains()
    return max(gains, key=gains.__getitem__)


class GrowRandomlyAt(Steering):
    """Adds random filters in the layers in which another network has grown, and when it has.

    Args:
        growths: of the other network.
        rebuilds: whether the optimizer is a new one after each growth.
    """

    def __init__(self, growths: Sequence[Growth], *, rebuilds: bool) -> None:
        self._left = list(growths)
        self._rebuilds = rebuilds
        self._pending: Any = None

    def before_batch(self, run: LoopRun, network: nn.Module, spent: float) -> None:
        if self._pending is not None and self._pending.reply is not None:
            self._pending.result()  # raises if the edit was refused
            self._pending = None
            if self._rebuilds:
                run.optimizers = torch.optim.Adam(network.parameters(), RATE)
        if self._left and self._pending is None and spent >= self._left[0].spent:
            self._pending = run.steer(AddFilters(self._left.pop(0).layer, ADDED))


def train_grow_arms(training: BudgetTraining) -> dict[str, TrainedNetwork]:
    """Return the networks of all `GROW_ARMS`, each trained with the whole budget."""
    reference = WIDTHS[training.architecture]
    narrow = tuple(width // NARROW for width in reference)
    grower = GrowByGain(training, training.macs_per_image(reference))
    grown = train_to_budget(training, narrow, grower)
    final = training.widths(grown.network)
    half = tuple(width // 2 for width in reference)
    return {
        "grown": grown,
        "final shape": train_to_budget(training, final),
        "half as wide": train_to_budget(training, half),
        "random filters": train_to_budget(
            training, narrow, GrowRandomlyAt(grower.growths, rebuilds=False)
        ),
        "rebuilt optimizer": train_to_budget(
            training, narrow, GrowRandomlyAt(grower.growths, rebuilds=True)
        ),
    }
