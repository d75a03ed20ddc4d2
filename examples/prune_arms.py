"""Pruning for `06_steering_pays.py`: to a budget, by price, by norms, or all layers to a half."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shape_networks import GROUPS, WIDTHS, Widths
from shape_training import BudgetTraining, Steering, TrainedNetwork, train_to_budget
from torch import Tensor, nn

from revacnn_lightning import LoopRun, PruneTo, RemoveFilters

__all__ = ["PRUNE_ARMS", "PruneByNorm", "train_prune_arms"]

PRUNE_ARMS = (
    "by price", "by norm", "uniform halving", "halved shape from scratch",
    "found shape from scratch",
)  # fmt: skip
START = 0.4  # share of the budget that the whole network is trained with
REMOVED, EVERY = 8, 8  # filters of a round, and batches from one to the next

Choose = Callable[[Widths, list[Tensor]], int]  # widths and norms of the groups -> a group


class PruneByPrice(Steering):
    """Lets the run prune its network to a share of its multiply-accumulates."""

    def __init__(self, training: BudgetTraining, share: float) -> None:
        self._start = START * training.budget
        self._share = share
        self._pending: Any = None

    def before_batch(self, run: LoopRun, network: nn.Module, spent: float) -> None:
        if self._pending is None and spent >= self._start:
            self._pending = run.steer(PruneTo(macs=self._share, filters=REMOVED, every=EVERY))

    def end(self) -> None:
        self._pending.result()  # raises if it was refused


class PruneByNorm(Steering):
    """Removes the filters with the smallest norms, as many at a time as by price.

    The norm of a filter is relative to the mean of its layer, and the mean over the layers of its
    group.

    Args:
        training: of the network.
        target: multiply-accumulates of an image that are few enough.
        choose: returns the group that loses a filter next.
    """

    def __init__(self, training: BudgetTraining, target: int, choose: Choose) -> None:
        self._training = training
        self._target = target
        self._choose = choose
        self._due = 0  # batch
        self._pending: list[Any] = []

    def before_batch(self, run: LoopRun, network: nn.Module, spent: float) -> None:
        is_early = spent < START * self._training.budget or run.step < self._due
        if is_early or any(one.reply is None for one in self._pending):
            return
        self.end()
        removed = self.filters_to_remove(network)
        self._pending = [run.steer(RemoveFilters(*one)) for one in removed.items()]
        self._due = run.step + EVERY

    def end(self) -> None:
        for one in self._pending:
            one.result()  # raises if the edit was refused

    def filters_to_remove(self, network: nn.Module) -> dict[str, list[int]]:
        """Return the filters of the next round, by the first layer of their group."""
        groups = GROUPS[self._training.architecture]
        norms = [relative_norms(network, group) for group in groups]
        orders = [norm.argsort().tolist() for norm in norms]
        widths, found = list(self._training.widths(network)), {}
        for _ in range(REMOVED):
            if self._training.macs_per_image(tuple(widths)) <= self._target:
                break
            left = [norm[order] for norm, order in zip(norms, orders, strict=True)]
            index = self._choose(tuple(widths), left)
            found.setdefault(groups[index][0], []).append(orders[index].pop(0))
            widths[index] -= 1
        return found


def relative_norms(network: nn.Module, group: tuple[str, ...]) -> Tensor:
    """Return the norm of each filter of a group, relative to the mean of its layer."""
    weights = [network.get_submodule(name).weight.detach() for name in group]
    norms = [weight.flatten(1).norm(dim=1) for weight in weights]
    return sum(norm / norm.mean() for norm in norms) / len(norms)


def group_with_smallest_norm(widths: Widths, norms: list[Tensor]) -> int:
    """Return the group with the smallest norm of all that have several filters.

    Args:
        widths: of each group.
        norms: of each group, ascending.
    """
    return min(
        (index for index, width in enumerate(widths) if width > 1),
        key=lambda index: float(norms[index][0]),
    )


def make_widest_group_chooser(reference: Widths) -> Choose:
    """Return what chooses the group that has most of its first width left."""

    def choose(widths: Widths, norms: list[Tensor]) -> int:
        shares = [width / first for width, first in zip(widths, reference, strict=True)]
        return shares.index(max(shares))

    return choose


def train_prune_arms(training: BudgetTraining) -> dict[str, TrainedNetwork]:
    """Return the networks of all `PRUNE_ARMS`, each trained with the whole budget."""
    reference = WIDTHS[training.architecture]
    half = tuple(width // 2 for width in reference)
    target, share = (
        training.macs_per_image(half),
        training.macs_per_image(half) / training.macs_per_image(reference),
    )
    priced = train_to_budget(training, reference, PruneByPrice(training, share))
    return {
        "by price": priced,
        "by norm": train_to_budget(
            training, reference, PruneByNorm(training, target, group_with_smallest_norm)
        ),
        "uniform halving": train_to_budget(
            training, reference, PruneByNorm(training, target, make_widest_group_chooser(reference))
        ),
        "halved shape from scratch": train_to_budget(training, half),
        "found shape from scratch": train_to_budget(training, training.widths(priced.network)),
    }
