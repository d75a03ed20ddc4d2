"""Reads the gradients of all weights at the end of a backward pass.

The gradient of a batch is read from ``.grad``, of all layers together, wherever ``.grad`` holds
this batch and nothing else. That is before anyone unscales or clips it. In the middle of an
accumulation window ``.grad`` holds more; there the hook on the weight sums the gradient that the
backward pass produces. (The hook must not keep that tensor: autograd would then copy it into
``.grad`` instead of moving it.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import Variable

from revacnn_lightning.telemetry.conv import weight_parameter
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.grouped_weights import WeightGrouping, read_gradients
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums

__all__ = ["GradientReader"]


class GradientReader:
    """Hooks the weights and sums their gradients.

    Args:
        batch: the batch under way.
        stopwatch: measures what that costs.
        grouping: reduces weights together.

    Attributes:
        hooked_count: how many weights were hooked so far. A change means that some conv has a
            new weight.
    """

    def __init__(self, batch: BatchState, stopwatch: Stopwatch, grouping: WeightGrouping) -> None:
        self.hooked_count = 0
        self._batch = batch
        self._stopwatch = stopwatch
        self._grouping = grouping
        # Whether another party modifies .grad at the end of the backward pass.
        self._must_sum_in_hooks = False
        # Whose .grad is to be read after the first backward pass of the batch, and after others.
        self._pending: list[WeightSums] = []
        self._pending_later: list[WeightSums] = []
        self._is_first = True  # no backward pass of the batch has been read
        self._weights: Sequence[WeightSums] = []  # of this batch

    def hook(self, sums: WeightSums) -> None:
        """Hook the current weight of the conv, if it can have a gradient."""
        weight = weight_parameter(sums.conv)
        if weight is sums.parameter and sums.handle is not None:
            return
        if weight is not sums.parameter:
            self.unhook(sums)
        if weight is None or not weight.requires_grad:
            return
        if weight is not sums.parameter:
            sums.reset()
            self.hooked_count += 1
            sums.parameter = weight
        sums.handle = weight.register_hook(self._gradient_hook(sums, weight))

    def unhook(self, sums: WeightSums) -> None:
        """Remove our hook."""
        self.suspend(sums)
        sums.parameter = None

    def suspend(self, sums: WeightSums) -> None:
        """Remove our hook until `hook` adds it again: calling it costs time."""
        if sums.handle is not None:
            sums.handle.remove()
        sums.handle = None

    def begin_batch(self, all_weights: Sequence[WeightSums]) -> None:
        """Discard the gradients of the previous batch."""
        # DistributedDataParallel averages .grad over the processes, at a time of its own.
        self._must_sum_in_hooks = (
            torch.distributed.is_available() and torch.distributed.is_initialized()
        )
        self._clear()
        self._weights = all_weights
        self._is_first = True
        for sums in all_weights:
            sums.has_gradient = False
            if sums.must_sum_in_hook:
                self._is_first = False  # then each hook has to check
            sums.finished_sum = sums.grad_sum = sums.grad = None
            if sums.plain is None and sums.effective.is_in_use:
                sums.effective.begin_batch()

    def end_batch(self) -> None:
        """Discard gradients that were not read. May be called repeatedly."""
        self._clear()
        for sums in self._weights:
            if sums.plain is None and sums.effective.is_in_use:
                sums.effective.end_batch()
        self._weights = []

    def _clear(self) -> None:
        self._pending.clear()
        self._pending_later.clear()

    def _gradient_hook(self, sums: WeightSums, weight: Tensor) -> Callable[[Tensor], None]:
        """Return the hook of a weight. It is called for each weight in each backward pass."""
        general = functools.partial(self._batch.guarded(self._on_gradient), sums)
        if sums.plain is not weight:
            return general
        pending = self._pending

        def hook(gradient: Tensor) -> None:
            # Not the first weight of the first backward pass, for which ``general`` has checked
            # what holds for all of them.
            if pending and weight.grad is None:
                pending.append(sums)  # .grad will hold this gradient and nothing else
            else:
                general(gradient)

        return hook

    def _on_gradient(self, sums: WeightSums, gradient: Tensor) -> None:
        self._batch.sum_deferred()  # the forward is over
        sums.has_gradient = True
        if sums.effective.is_observed:
            return  # the gradient of the weight that was computed from this parameter counts
        if self._must_sum_in_hooks or not sums.prepare_read():
            self._batch.is_regular = False
            sums.add_gradient(gradient)
            return
        if not self._pending and not self._pending_later:
            Variable._execution_engine.queue_callback(self._batch.guarded(self._read_pending))
        (self._pending if self._is_first else self._pending_later).append(sums)

    def _read_pending(self) -> None:
        pending = dict.fromkeys([*self._pending, *self._pending_later])
        self._clear()
        self._is_first = False
        for sums in pending:
            sums.has_gradient = True
        start = self._stopwatch.now()
        with torch.no_grad():
            read_gradients(self._grouping, self._grouping.of(list(pending)))
        self._stopwatch.add("gradient", start)
