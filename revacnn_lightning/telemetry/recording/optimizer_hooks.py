"""What the optimizers do to the weights of the convs, seen by hooks on all optimizers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.recording.weight_sums import (
    GradientReader,
    OptimizerStep,
    WeightSums,
    weight_of,
)

__all__ = ["OptimizerHooks"]

# Those of our weights that an optimizer changes, by the parameter group.
_Mine = list[tuple[dict[str, Any], list[WeightSums]]]


class OptimizerHooks:
    """Measures the steps of all optimizers.

    Args:
        stopwatch: is told how long that takes.
        reader: tells when a conv has got another weight.

    Attributes:
        owed: the statistics of a step that are to be gathered at the next one.
        stepped: whether they have been, in this batch.
    """

    def __init__(self, stopwatch: Stopwatch, reader: GradientReader) -> None:
        self.owed: frozenset[str] = frozenset()
        self.stepped = False
        self._stopwatch = stopwatch
        self._handles: list[RemovableHandle] = []
        self._counting = False
        self._reader = reader
        self._layers: Collection[ObservedLayer] = []
        self._mine: dict[int, tuple[Any, int, int, _Mine]] = {}

    def attach(self) -> None:
        """Hook all optimizers of the process."""
        self._handles = [
            register_optimizer_step_pre_hook(self._on_stepping),
            register_optimizer_step_post_hook(self._on_stepped),
        ]

    def detach(self) -> None:
        """Remove the hooks, and forget the optimizers."""
        self.end()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._mine.clear()

    def follow(self, layers: Collection[ObservedLayer]) -> None:
        """The weights are of these layers now."""
        self._layers = layers
        self._mine.clear()

    def begin(self, due: frozenset[str]) -> None:
        """A batch begins. What is ``due`` is gathered at its step, else at the next one."""
        self._counting = True
        self.owed = due if self.stepped else self.owed | due
        self.stepped = False

    def end(self) -> None:
        """The batch is over."""
        self._counting = False

    def _on_stepping(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        if not self._counting or "update_ratio" not in self.owed:
            return None
        copied = [
            weights
            for group, mine in self._mine_of(optimizer)
            if not OptimizerStep(optimizer, group).is_told
            for weights in mine
        ]
        if not copied:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0]: the optimizer
        if closure is None:
            self._copy(copied)
            return None

        def closure_then_copy() -> Any:  # backward runs in it: a copy before would cost its memory
            result = closure()
            self._copy(copied)
            return result

        if len(args) > 1:
            return (args[0], closure_then_copy, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure_then_copy}

    def _copy(self, copied: Collection[WeightSums]) -> None:
        begin = self._stopwatch.now()
        for weights in copied:
            weights.copy()
        self._stopwatch.add("update_ratio", begin)

    def _on_stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self._counting or not self.owed:
            return
        steps = self._mine_of(optimizer)
        if not steps:
            return
        with torch.no_grad():
            begin = self._stopwatch.now()
            if "update_ratio" in self.owed:
                for group, mine in steps:
                    step = OptimizerStep(optimizer, group)
                    for weights in mine:
                        weights.stepped(step)
                self._stopwatch.add("update_ratio", begin)
            if "optimizer_gradient" in self.owed:
                begin = self._stopwatch.now()
                for _, mine in steps:
                    for weights in mine:
                        weights.took()
                self._stopwatch.add("optimizer_gradient", begin)
        self.stepped = True

    def _mine_of(self, optimizer: torch.optim.Optimizer) -> _Mine:
        """Our weights that the optimizer changes. Kept as long as all of them are the same."""
        groups = optimizer.param_groups
        count = sum(len(group["params"]) for group in groups)
        *of, mine = self._mine.get(id(optimizer), (None, 0, 0, []))
        if of[0] is groups and of[1:] == [count, self._reader.hooked]:
            return mine
        known = {id(weight_of(layer.conv)): layer.weights for layer in self._layers}
        mine = []
        for group in groups:
            ours = [known[id(each)] for each in group["params"] if id(each) in known]
            if ours:
                mine.append((group, ours))
        self._mine[id(optimizer)] = (groups, count, self._reader.hooked, mine)
        return mine
