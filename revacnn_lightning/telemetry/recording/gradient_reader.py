"""Reads the gradients of all weights at the end of a backward pass.

The gradient of a batch is read from ``.grad``, all layers in one loop, wherever ``.grad`` holds
this batch and nothing else. That is before anyone unscales or clips it. In the middle of an
accumulation window ``.grad`` holds more; there the hook on the weight sums the gradient that the
backward pass produces. (The hook must not keep that tensor: autograd would then copy it into
``.grad`` instead of moving it.)
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import Variable

from revacnn_lightning.telemetry.conv import weight_parameter
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums, read_gradients

__all__ = ["GradientReader"]


class GradientReader:
    """Hooks the weights and sums their gradients.

    Args:
        batch: the batch under way.
        stopwatch: measures what that costs.

    Attributes:
        hooked_count: how many weights were hooked so far. A change means that some conv has a
            new weight.
    """

    def __init__(self, batch: BatchState, stopwatch: Stopwatch) -> None:
        self.hooked_count = 0
        self._batch = batch
        self._stopwatch = stopwatch
        # Whether another party modifies .grad at the end of the backward pass.
        self._must_sum_in_hooks = False
        self._pending: list[WeightSums] = []
        self._weights: list[WeightSums] = []  # of this batch

    def hook(self, sums: WeightSums) -> None:
        """Hook the current weight of the conv, if it can have a gradient."""
        weight = weight_parameter(sums.conv)
        if weight is sums.parameter:
            return
        self.unhook(sums)
        if weight is None or not weight.requires_grad:
            return
        sums.reset()
        self.hooked_count += 1
        sums.parameter = weight
        sums.handle = weight.register_hook(
            self._batch.guarded(functools.partial(self._on_gradient, sums))
        )

    def unhook(self, sums: WeightSums) -> None:
        """Remove our hook."""
        if sums.handle is not None:
            sums.handle.remove()
        sums.parameter = sums.handle = None

    def begin_batch(self, weights: Iterable[WeightSums]) -> None:
        """Discard the gradients of the previous batch and hook new weights."""
        # DistributedDataParallel averages .grad over the processes, at a time of its own.
        self._must_sum_in_hooks = (
            torch.distributed.is_available() and torch.distributed.is_initialized()
        )
        self._pending = []
        self._weights = list(weights)
        for sums in self._weights:
            self.hook(sums)
            sums.begin_batch()

    def end_batch(self) -> None:
        """Discard gradients that were not read. May be called repeatedly."""
        self._pending = []
        for sums in self._weights:
            if sums.effective.is_in_use:
                sums.effective.end_batch()
        self._weights = []

    def _on_gradient(self, sums: WeightSums, gradient: Tensor) -> None:
        if not self._batch.is_recording:
            return
        sums.has_gradient = True
        if sums.effective.is_observed:
            return  # the gradient of the weight that was computed from this parameter counts
        if self._must_sum_in_hooks or not sums.prepare_read():
            sums.add_gradient(gradient)
            return
        if not self._pending:
            Variable._execution_engine.queue_callback(self._batch.guarded(self._read_pending))
        self._pending.append(sums)

    def _read_pending(self) -> None:
        pending, self._pending = self._pending, []
        start = self._stopwatch.now()
        with torch.no_grad():
            read_gradients(dict.fromkeys(pending))
        self._stopwatch.add("gradient", start)
