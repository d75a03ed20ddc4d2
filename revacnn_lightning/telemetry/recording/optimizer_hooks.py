"""Measures what the optimizers do to the weights of the convs, with hooks on all optimizers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.conv import weight_parameter
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.gradient_reader import WeightGradientReader
from revacnn_lightning.telemetry.recording.group_step import ParameterGroupStep
from revacnn_lightning.telemetry.recording.grouped_weights import (
    GroupedWeights,
    WeightGrouper,
    measure_updates,
    sum_optimizer_gradients,
)
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.timing import Stopwatch

__all__ = ["OptimizerHooks"]

Copy = Callable[[], None]
# The observed weights that an optimizer changes, by parameter group.
_Groups = list[tuple[dict[str, Any], GroupedWeights]]


class OptimizerHooks:
    """Measures the steps of all optimizers.

    Args:
        batch: the batch under way.
        stopwatch: measures what that costs.
        reader: knows when a conv has a new weight.
        grouper: reduces weights together.

    Attributes:
        pending: optimizer statistics to measure at the next step.
        has_stepped: whether they were measured in this batch.
    """

    def __init__(
        self,
        batch: BatchState,
        stopwatch: Stopwatch,
        reader: WeightGradientReader,
        grouper: WeightGrouper,
    ) -> None:
        self.pending: frozenset[str] = frozenset()
        self.has_stepped = False
        self._batch = batch
        self._stopwatch = stopwatch
        self._reader = reader
        self._grouper = grouper
        self._handles: list[RemovableHandle] = []
        self._layers: Collection[ObservedLayer] = []
        self._cache: dict[int, tuple[Any, int, int, _Groups]] = {}

    def attach(self) -> None:
        """Hook all optimizers of the process."""
        self._handles = [
            register_optimizer_step_pre_hook(self._batch.guarded(self._before_step)),
            register_optimizer_step_post_hook(self._batch.guarded(self._after_step)),
        ]

    def detach(self) -> None:
        """Remove the hooks and release the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._cache.clear()

    def update_structure(self, layers: Collection[ObservedLayer]) -> None:
        """Measure the weights of these layers from now on."""
        self._layers = layers
        self._cache.clear()

    def begin_batch(self, due_statistics: frozenset[str]) -> None:
        """Measure what is ``due_statistics`` at the next step, in this batch or in a later one."""
        self.pending = due_statistics if self.has_stepped else self.pending | due_statistics
        self.has_stepped = False

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """Copy the weights, unless the optimizer's state will show how it changed them."""
        if "update_ratio" not in self.pending:
            return None
        to_copy: list[Copy] = []
        for group, weights in self._groups_of(optimizer):
            is_scaled = ParameterGroupStep(optimizer, group).is_scaled_momentum
            if weights.members and not is_scaled:
                to_copy.append(weights.copy)
            others = [each for each in weights.others if each.is_computed or not is_scaled]
            to_copy += [each.copy_weight for each in others]
        if not to_copy:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0] is the optimizer
        if closure is None:
            self._copy(to_copy)
            return None

        copy = self._batch.guarded(self._copy)

        def closure_then_copy() -> Any:  # backward runs in it: an earlier copy adds to peak memory
            result = closure()
            copy(to_copy)
            return result

        if len(args) > 1:
            return (args[0], closure_then_copy, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure_then_copy}

    def _copy(self, to_copy: Collection[Copy]) -> None:
        start = self._stopwatch.now()
        # No mode sees it: it is none of the training's.
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for copy in to_copy:
                copy()
        self._stopwatch.add("update_ratio", start)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self.pending:
            return
        groups = self._groups_of(optimizer)
        if not groups:
            return
        with torch._C.DisableTorchFunction(), torch.no_grad():
            start = self._stopwatch.now()
            if "update_ratio" in self.pending:
                for group, weights in groups:
                    measure_updates(self._grouper, weights, ParameterGroupStep(optimizer, group))
                self._stopwatch.add("update_ratio", start)
            if "optimizer_gradient" in self.pending:
                start = self._stopwatch.now()
                for _, weights in groups:
                    sum_optimizer_gradients(self._grouper, weights)
                self._stopwatch.add("optimizer_gradient", start)
        self.has_stepped = True

    def _groups_of(self, optimizer: torch.optim.Optimizer) -> _Groups:
        """Return the observed weights of an optimizer, cached until it or a conv has new ones."""
        groups = optimizer.param_groups
        count = sum(len(group["params"]) for group in groups)
        *key, observed = self._cache.get(id(optimizer), (None, 0, 0, []))
        if key[0] is groups and key[1:] == [count, self._reader.hooked_count]:
            return observed
        weights_of = {id(weight_parameter(layer.conv)): layer.weights for layer in self._layers}
        observed = []
        for group in groups:
            weights = [weights_of[id(p)] for p in group["params"] if id(p) in weights_of]
            if weights:
                observed.append((group, self._grouper.group(weights)))
        self._cache[id(optimizer)] = (groups, count, self._reader.hooked_count, observed)
        return observed
