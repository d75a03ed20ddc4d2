"""Sums over the weights of many layers: their gradients, their norms, and their last update.

Plain weights are reduced together, straight into their slots (`GroupedFilterNorms`). Those that the
forward computes, and those on another device than the buffer, are reduced one by one.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

from revacnn_lightning.telemetry.conv import weight_parameter
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.recording.group_step import ParameterGroupStep
from revacnn_lightning.telemetry.recording.grouped_filter_norms import GroupedFilterNorms
from revacnn_lightning.telemetry.recording.split_weights import reduce_local_filters
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums
from revacnn_lightning.telemetry.reductions import filter_l1_norms, filter_l2_norms

__all__ = [
    "GroupedWeights",
    "WeightGrouper",
    "measure_unknown_norms",
    "measure_updates",
    "sum_gradient_magnitudes_one_by_one",
    "sum_gradients_if_complete",
    "sum_optimizer_gradients",
]

_IS_MISSING = functools.partial(operator.is_, None)  # `in` would compare element by element
MAX_CACHED = 16  # selections of weights; a training has a few


class GroupedWeights:
    """A selection of weights, grouped when it first occurs.

    Attributes:
        members: those that are reduced together, in the order of their slots.
        parameters: the weights of the members.
        groups: computes the norms of these, or of tensors of their shapes.
        others: those that are reduced one by one.
        copies: copies of the weights before the optimizer step under way.
    """

    def __init__(self, selection: Sequence[WeightSums], buffer: FlatBuffer) -> None:
        self.members = [weights for weights in selection if weights.plain is not None]
        self.members.sort(key=lambda weights: weights.columns.start)
        self.parameters = [weights.plain for weights in self.members if weights.plain is not None]
        self.others = [weights for weights in selection if weights.plain is None]
        self.groups = GroupedFilterNorms(
            [weights.conv for weights in self.members],
            self.parameters,
            [weights.columns for weights in self.members],
            buffer,
        )
        self.copies: list[Any] | None = None

    def remaining(self, are_members_done: bool) -> list[WeightSums]:
        """Return the weights to reduce one by one: the members, too, unless they are done."""
        return self.others if are_members_done else [*self.members, *self.others]

    def copy(self) -> None:
        """Copy the members before an optimizer changes them."""
        if self.copies is None:
            self.copies = self.groups.copy(self.parameters)


class WeightGrouper:
    """Groups weights that are measured together, and notes in the batch what was measured.

    Args:
        batch: the batch under way.
    """

    def __init__(self, batch: BatchState) -> None:
        self.batch = batch
        self._buffer = FlatBuffer(0, torch.device("cpu"))
        self._cache: dict[tuple[WeightSums, ...], GroupedWeights] = {}

    def use_buffer(self, buffer: FlatBuffer) -> None:
        """Write to the slots of this buffer from now on."""
        self._buffer = buffer
        self._cache.clear()

    def group(self, selection: Sequence[WeightSums]) -> GroupedWeights:
        """Return these weights, grouped. The groups of a selection are computed once."""
        key = tuple(selection)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            found = self._cache[key] = GroupedWeights(selection, self._buffer)
        return found

    def note_measured(self, what: str, weights: GroupedWeights, *, is_complete: bool) -> None:
        """Note a measurement in the batch: as an event if it has filled all slots."""
        if is_complete and not weights.others:
            self.batch.events.append((what, weights))
        else:
            self.batch.is_regular = False


def sum_gradients_if_complete(grouper: WeightGrouper, weights: GroupedWeights) -> bool:
    """Sum the magnitudes of what ``.grad`` holds after the backward pass.

    Returns:
        False, with nothing done, if some ``.grad`` is empty.
    """
    grads = [parameter.grad for parameter in weights.parameters]
    if not _is_complete(grads):
        return False
    weights.groups.write_l1_norms("gradient", grads)
    for each, grad in zip(weights.members, grads, strict=True):
        each.has_gradient = True
        each.grad_sum, each.grad = each.slots["gradient"], grad
        each.grad_version = grad._version
    _read_one_by_one(weights.others)
    grouper.note_measured("gradient", weights, is_complete=True)
    return True


def sum_gradient_magnitudes_one_by_one(grouper: WeightGrouper, weights: GroupedWeights) -> None:
    """Sum the magnitudes of what ``.grad`` holds, for the weights where it is not empty."""
    _read_one_by_one(weights.remaining(are_members_done=False))
    grouper.note_measured("gradient", weights, is_complete=False)


def measure_unknown_norms(grouper: WeightGrouper, weights: GroupedWeights) -> None:
    """Compute the norms of the weights that are not known yet."""
    unknown = [
        each
        for each, parameter in zip(weights.members, weights.parameters, strict=True)
        if each.norm is None or each.norm_version != parameter._version
    ]
    if unknown:
        selection = grouper.group(unknown)
        selection.groups.write_l2_norms({"weight_norm": selection.parameters})
        for each, parameter in zip(selection.members, selection.parameters, strict=True):
            each.norm, each.norm_version = each.slots["weight_norm"], parameter._version
        grouper.note_measured("norm", selection, is_complete=True)
    if weights.others:
        _measure_norms_one_by_one(weights.others)
        grouper.note_measured("norm", weights, is_complete=False)


def measure_updates(
    grouper: WeightGrouper, weights: GroupedWeights, step: ParameterGroupStep
) -> None:
    """Compute ‖Δw‖ and ‖w‖ after an optimizer step."""
    copies, weights.copies = weights.copies, None
    divisor = 1.0
    changes = None if copies is not None else _momentum(weights, step)
    if copies is not None:
        weights.groups.write_change_norms(weights.parameters, copies)
    elif changes is not None:
        divisor = step.momentum_divisor
        weights.groups.write_l2_norms(
            {"update_ratio": changes, "norm_after_step": weights.parameters}
        )
    is_complete = copies is not None or changes is not None
    if is_complete:
        for each, parameter in zip(weights.members, weights.parameters, strict=True):
            each.update_norm, each.update_divisor = each.slots["update_ratio"], divisor
            each.norm = each.norm_after_step = each.slots["norm_after_step"]
            each.norm_version = parameter._version
    _measure_updates_one_by_one(weights.remaining(is_complete), step)
    grouper.note_measured("update", weights, is_complete=is_complete)


def sum_optimizer_gradients(grouper: WeightGrouper, weights: GroupedWeights) -> None:
    """Sum the gradients that the optimizer has just used, which ``.grad`` still holds."""
    grads = [parameter.grad for parameter in weights.parameters]
    is_complete = _is_complete(grads)
    if _is_complete(grads):
        weights.groups.write_l1_norms("optimizer_gradient", grads)
        for each in weights.members:
            each.optimizer_gradient = each.slots["optimizer_gradient"]
    for each, _, total in _l1_one_by_one(weights.remaining(is_complete), _used_grad):
        each.optimizer_gradient = total
    grouper.note_measured("optimizer gradient", weights, is_complete=is_complete)


# ---------------------------------------------------------------------- one by one


def _l1_one_by_one(
    all_weights: Sequence[WeightSums], get_grad: Callable[[WeightSums], Tensor | None]
) -> list[tuple[WeightSums, Tensor, Tensor]]:
    """Return the weights with a gradient, that gradient, and its L1 norm of each filter."""
    if not all_weights:
        return []
    found = [(each, get_grad(each)) for each in all_weights]
    known = [(each, grad) for each, grad in found if grad is not None]
    totals = reduce_local_filters(filter_l1_norms, [(each.conv, grad) for each, grad in known])
    return [(*pair, total) for pair, total in zip(known, totals, strict=True)]


def _read_one_by_one(all_weights: Sequence[WeightSums]) -> None:
    for each in all_weights:
        each.has_gradient = True
    for each, grad, total in _l1_one_by_one(all_weights, _finished_grad):
        each.set_grad_sum(grad, total)


def _finished_grad(weights: WeightSums) -> Tensor | None:
    return weights.grad_after_backward()


def _used_grad(weights: WeightSums) -> Tensor | None:
    parameter = weight_parameter(weights.conv)
    return None if parameter is None else parameter.grad


def _measure_updates_one_by_one(
    all_weights: Sequence[WeightSums], step: ParameterGroupStep
) -> None:
    if not all_weights:
        return
    found = [(each, each.weight_change_in_step(step)) for each in all_weights]
    known = [(each, change) for each, change in found if change is not None]
    norms = reduce_local_filters(filter_l2_norms, [(each.conv, change) for each, change in known])
    _measure_norms_one_by_one([each for each, _ in known])
    for (each, _), norm in zip(known, norms, strict=True):
        each.update_norm, each.norm_after_step = norm, each.norm


def _measure_norms_one_by_one(all_weights: Sequence[WeightSums]) -> None:
    found = [(each, each.weight_of_unknown_norm()) for each in all_weights]
    unknown = [(each, weight) for each, weight in found if weight is not None]
    norms = reduce_local_filters(filter_l2_norms, [(each.conv, weight) for each, weight in unknown])
    for (each, weight), norm in zip(unknown, norms, strict=True):
        each.set_norm(weight, norm)


# ---------------------------------------------------------------------- helpers


def _momentum(weights: GroupedWeights, step: ParameterGroupStep) -> list[Tensor] | None:
    """Return the momentum of each member; None if that of some does not show its update."""
    if not step.is_scaled_momentum or not _is_complete([w.grad for w in weights.parameters]):
        return None  # the optimizer skips weights without a gradient
    states = step.optimizer.state
    return [states.get(parameter, {})["momentum_buffer"] for parameter in weights.parameters]


def _is_complete(tensors: list[Tensor | None]) -> TypeGuard[list[Tensor]]:
    """Return whether none is missing."""
    return not any(map(_IS_MISSING, tensors))
