"""Scales new filters so that their outputs are as strong as those of the filters beside them.

A new filter starts with outgoing weights of zero, which learn in proportion to its output; its own
weights learn in proportion to the outgoing ones. A layer that has trained for a while has larger
outputs than the default initialization gives, and a new filter starves beside it. Scaling a layer
to a wanted output on real data is the idea of LSUV (Mishkin & Matas 2016).

Filters before a batch norm are not scaled: their scale does not change their output, and larger
weights there get smaller gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.steering.execution.replacement import replace_data
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import randomly_drawn_indices
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import TensorEdit, ValueEdit
from revacnn_lightning.telemetry.inspection.user_modes import torch_modes_suspended
from revacnn_lightning.telemetry.unit_layers import (
    UnitLayer,
    group_count,
    is_transposed,
    kernel_size,
)

__all__ = ["DrawnByConv", "edits_to_scale", "measured_strengths", "scale_new_filters"]

# conv -> the changes of its tensors that have drawn new filters
DrawnByConv = dict[UnitLayer, list[TensorEdit | ValueEdit]]

# A filter is never scaled by more than this, in case the verifying batch is unusual.
MAX_FACTOR = 10.0


def scale_new_filters(
    tx: Transaction, model: nn.Module, edits: DrawnByConv, strengths: Mapping[UnitLayer, Tensor]
) -> None:
    """Scale the weights and biases of new filters to outputs as strong as those of the others.

    The scaled values are those that performed edits drew at random. Call this while nothing reads
    the new filters: then the output stays the same.

    Args:
        edits: what `edits_to_scale` returns.
        strengths: what `measured_strengths` yields.
    """
    for conv, of_conv in edits.items():
        if conv in strengths:
            _scale(tx, model, of_conv, strengths[conv])


def edits_to_scale(model: nn.Module, edits: Sequence[TensorEdit | ValueEdit]) -> DrawnByConv:
    """Return conv -> the changes of its tensors whose new filters can be scaled."""
    by_conv: DrawnByConv = {}
    for edit in edits:
        owner, _ = find_owner_and_tensor(model, edit.tensor)
        # A weight that is computed from others is not scaled: its filters have norms of their own.
        if not isinstance(owner, UnitLayer) or "weight" not in owner._parameters:
            continue
        if not (is_transposed(owner) and group_count(owner) > 1):
            by_conv.setdefault(owner, []).append(edit)
    return by_conv


@contextmanager
def measured_strengths(convs: Iterable[UnitLayer]) -> Iterator[dict[UnitLayer, Tensor]]:
    """Yield conv -> root mean square of the positive outputs of each filter.

    The outputs are those of the forwards inside. No mode sees how they are measured.
    """
    strengths: dict[UnitLayer, Tensor] = {}

    def measure(conv: Any, args: Any, output: Tensor) -> None:
        channel = output.ndim - len(kernel_size(conv)) - 1  # 0 for an image without a batch
        others = [dim for dim in range(output.ndim) if dim != channel]
        with torch_modes_suspended():
            positive = output.detach().clamp(min=0).double()
            strengths[conv] = positive.square().mean(others).sqrt().cpu()

    handles = [conv.register_forward_hook(measure, prepend=True) for conv in convs]
    try:
        yield strengths
    finally:
        for handle in handles:
            handle.remove()


def _scale(
    tx: Transaction,
    model: nn.Module,
    edits: Sequence[TensorEdit | ValueEdit],
    strength: Tensor,
) -> None:
    """Scale the new entries of the tensors of one conv."""
    is_new = torch.zeros(len(strength), dtype=torch.bool)
    is_new[randomly_drawn_indices(edits[0])] = True
    old, new = strength[~is_new], strength[is_new]
    live = old[old > 0]
    if not len(live) or not new.isfinite().all() or not live.isfinite().all():
        return
    factors = torch.where(new > 0, live.mean() / new, torch.ones_like(new))
    factors = factors.clamp(1 / MAX_FACTOR, MAX_FACTOR)
    for edit in edits:
        _, tensor = find_owner_and_tensor(model, edit.tensor)
        shape = [1] * tensor.ndim
        shape[edit.dim] = tensor.shape[edit.dim]
        scale = torch.ones(len(strength), dtype=torch.float64)
        scale[is_new] = factors
        scaled = tensor.detach() * scale.to(tensor).view(shape)
        replace_data(tx, tensor, scaled, tensor.grad)
