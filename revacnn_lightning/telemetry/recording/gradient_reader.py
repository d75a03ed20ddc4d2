"""Reads the gradients of all weights at the end of a backward pass.

The gradient of a batch is read from ``.grad``, of all layers together, wherever ``.grad`` holds
this batch and nothing else. That is before anyone unscales or clips it. In the middle of an
accumulation window ``.grad`` holds more; there the hook on the weight sums the gradient that the
backward pass produces. (The hook must not keep that tensor: autograd would then copy it into
``.grad`` instead of moving it.) In a plain training, one weight with a hook is enough
(`single_hook_policy`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import Variable

from revacnn_lightning.telemetry.conv import weight_parameter
from revacnn_lightning.telemetry.recording.backward_passes import current_pass
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.grouped_weights import (
    WeightGrouper,
    sum_gradient_magnitudes_one_by_one,
    sum_gradients_if_complete,
)
from revacnn_lightning.telemetry.recording.single_hook_policy import SingleWeightHookPolicy
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums

__all__ = ["WeightGradientReader"]


class WeightGradientReader:
    """Hooks the weights and sums their gradients.

    Args:
        batch: the batch under way.
        stopwatch: measures what that costs.
        grouper: reduces weights together.

    Attributes:
        hooked_count: how many weights were hooked so far. A change means that some conv has a
            new weight.
    """

    def __init__(self, batch: BatchState, stopwatch: Stopwatch, grouper: WeightGrouper) -> None:
        self.hooked_count = 0
        self._batch = batch
        self._stopwatch = stopwatch
        self._grouper = grouper
        self._policy = SingleWeightHookPolicy()
        self._remaining: set[WeightSums] = set()  # those without a hook: frozen, or lazy
        # Whether another party modifies .grad at the end of the backward pass.
        self._must_sum_in_hooks = False
        # By the number of a backward pass that is under way: whose .grad is to be read at its end.
        self._pending: dict[int, list[WeightSums]] = {}
        self._is_first = True  # no backward pass of the batch has begun
        self._first_pass = -1  # while it is under way, the first one
        # The number of each pass that was read in this batch, and the order of its gradients.
        self._read: list[tuple[int, tuple[WeightSums, ...]]] = []
        self._is_plain = True  # there were no other gradients
        self._weights: Sequence[WeightSums] = []  # of this batch

    # ------------------------------------------------------------------ which weights have hooks

    def hook(self, sums: WeightSums) -> None:
        """Hook the current weight of the conv, if it can have a gradient and is no follower."""
        weight = weight_parameter(sums.conv)
        if weight is sums.parameter and (sums.handle is not None or sums in self._policy.followers):
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
        self._remaining.discard(sums)

    def unhook(self, sums: WeightSums) -> None:
        """Remove our hook."""
        self.suspend(sums)
        sums.parameter = None

    def suspend(self, sums: WeightSums) -> None:
        """Remove our hook until `hook_remaining` adds it again: calling it costs time."""
        if sums in self._policy.order:
            self._hook_followers()
        if sums.handle is not None:
            sums.handle.remove()
            _forget_hooks(sums.parameter)
        sums.handle = None
        self._remaining.add(sums)

    def hook_remaining(self) -> None:
        """Hook the weights without a hook, if they can have a gradient now."""
        if self._remaining:
            for sums in self._remaining.copy():
                self.hook(sums)

    def update_structure(self, all_weights: Sequence[WeightSums]) -> None:
        """Hook these weights and no others, because the weights or their slots have changed."""
        for sums in all_weights:
            self.suspend(sums)  # the hook depends on whether a weight has slots
        self._policy.reset()
        self._remaining = set(all_weights)
        self.hook_remaining()

    def _follow(self) -> None:
        """Leave a hook on the lead only."""
        lead, *followers = self._policy.order
        assert lead.parameter is not None
        assert lead.handle is not None
        lead.handle.remove()
        on_lead = functools.partial(self._batch.guarded(self._on_lead_gradient), lead)
        lead.handle = lead.parameter.register_hook(on_lead)
        for sums in followers:
            assert sums.handle is not None
            sums.handle.remove()
            sums.handle = None
            _forget_hooks(sums.parameter)

    def _hook_followers(self) -> None:
        """Give all weights a hook of their own again. May be called by the hook of the lead."""
        order = self._policy.order
        self._policy.require_all_hooks()
        for sums in order:
            replaced, sums.handle = sums.handle, None
            self._remaining.add(sums)  # it may be frozen now
            self.hook(sums)
            if replaced is not None:
                replaced.remove()

    def _lose(self, lost: Sequence[WeightSums]) -> None:
        """Mark gradients that may be incomplete, and do not rely on the lead any more."""
        self._batch.is_regular = False
        self._hook_followers()
        self._policy.require_all_hooks_until_reset()
        for sums in lost:
            sums.is_gradient_lost = True

    # ------------------------------------------------------------------ a batch

    def begin_batch(self, all_weights: Sequence[WeightSums]) -> None:
        """Discard the gradients of the previous batch."""
        # DistributedDataParallel averages .grad over the processes, at a time of its own.
        self._must_sum_in_hooks = (
            torch.distributed.is_available() and torch.distributed.is_initialized()
        )
        self._pending.clear()
        self._read.clear()
        self._weights = all_weights
        self._is_first = self._is_plain = True
        self._first_pass = -1
        for sums in all_weights:
            sums.has_gradient = sums.is_gradient_lost = False
            if sums.must_sum_in_hook:
                self._is_first = False  # then each hook has to check
            sums.finished_sum = sums.grad_sum = sums.grad = None
            if sums.plain is None and sums.effective.is_in_use:
                sums.effective.begin_batch()
        if self._must_sum_in_hooks:
            self._hook_followers()
        self._policy.begin_batch()

    def check_missed_gradients(self) -> None:
        """Check at the end of the batch that no gradient was missed."""
        if self._pending:  # an error has ended these passes
            self._lose([sums for pending in self._pending.values() for sums in pending])
        elif self._policy.order:
            if self._policy.has_missed_pass():
                self._lose(self._policy.order[1:])
        elif self._is_plain and len(self._read) == 1:
            if self._policy.learn(*self._read[0]):
                self._follow()
        else:
            self._policy.require_all_hooks()

    def end_batch(self) -> None:
        """Discard gradients that were not read. May be called repeatedly."""
        self._pending.clear()
        for sums in self._weights:
            if sums.plain is None and sums.effective.is_in_use:
                sums.effective.end_batch()
        self._weights = []

    # ------------------------------------------------------------------ a backward pass

    def _gradient_hook(self, sums: WeightSums, weight: Tensor) -> Callable[[Tensor], None]:
        """Return the hook of a weight. It is called for each weight in each backward pass."""
        general = functools.partial(self._batch.guarded(self._on_gradient), sums)
        if sums.plain is not weight:
            return general
        pending = self._pending

        def hook(gradient: Tensor) -> None:
            number = current_pass()
            if number == self._first_pass and weight.grad is None:
                pending[number].append(sums)  # .grad will hold this gradient and nothing else
            else:
                general(gradient)

        return hook

    def _on_gradient(self, sums: WeightSums, gradient: Tensor) -> None:
        self._batch.sum_deferred_maps()
        sums.has_gradient = True
        if sums.effective.is_observed:
            return  # the gradient of the weight that was computed from this parameter counts
        if self._must_sum_in_hooks or not sums.prepare_read():
            self._batch.is_regular = self._is_plain = False
            sums.add_gradient(gradient)
            return
        self._read_at_end(current_pass(), (sums,))

    def _on_lead_gradient(self, lead: WeightSums, gradient: Tensor) -> None:
        """Handle the gradient of the only weight with a hook."""
        self._batch.sum_deferred_maps()
        number = current_pass()
        if self._is_first and self._policy.are_gradients_empty():
            self._read_at_end(number, self._policy.order)
            self._policy.has_passed = True
            return
        lost = self._policy.possibly_missed_weights(number)
        if lost:
            self._lose(lost)
        else:
            self._hook_followers()
        self._on_gradient(lead, gradient)

    def _read_at_end(self, number: int, weights: Sequence[WeightSums]) -> None:
        """Read ``.grad`` of these weights when this backward pass ends."""
        if number not in self._pending:
            self._pending[number] = []
            read = functools.partial(self._batch.guarded(self._read_pending), number)
            Variable._execution_engine.queue_callback(read)
        if self._is_first:
            self._is_first, self._first_pass = False, number
        self._pending[number] += weights

    def _read_pending(self, number: int) -> None:
        weights = tuple(dict.fromkeys(self._pending.pop(number)))
        self._first_pass = -1
        self._read.append((number, weights))
        start = self._stopwatch.now()
        with torch.no_grad():
            if not sum_gradients_if_complete(self._grouper, self._grouper.group(weights)):
                found = self._without_missing(weights) if self._policy.order else weights
                sum_gradient_magnitudes_one_by_one(self._grouper, self._grouper.group(found))
        self._stopwatch.add("gradient", start)

    def _without_missing(self, weights: tuple[WeightSums, ...]) -> tuple[WeightSums, ...]:
        """Return the weights whose gradient has arrived. Gradients of the others are lost."""
        found = tuple(each for each in weights if not each.is_without_gradient)
        self._lose([each for each in weights if each not in found and each.is_trainable])
        return found


def _forget_hooks(weight: Tensor | None) -> None:
    """Let autograd look for no hooks of this weight, if there are none any more."""
    if weight is not None and weight.is_leaf and not weight._backward_hooks:
        weight._backward_hooks = None
