"""Scales new filters so that their outputs are as strong as those of the filters beside them.

A new filter starts with outgoing weights of zero, which learn in proportion to its output; its own
weights learn in proportion to the outgoing ones. A layer that has trained for a while has larger
outputs than the default initialization gives, and a new filter starves beside it. Scaling a layer
to a wanted output on real data is the idea of LSUV (Mishkin & Matas 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from revacnn_lightning.steering.execution.tensor_edits import replace_data
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.lookup import find_tensor
from revacnn_lightning.steering.planning.plan import EditPlan, TensorEdit
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe, evaluate

__all__ = ["match_activations"]

# A filter is never scaled by more than this, in case the verifying batch is unusual.
MAX_FACTOR = 10.0


def match_activations(
    tx: Transaction, model: nn.Module, plan: EditPlan, probe: ForwardProbe
) -> None:
    """Scale the weights and biases of the plan's new random filters. The output stays the same."""
    edits: dict[_ConvNd, list[TensorEdit]] = {}
    for edit in plan.tensors:
        owner, _ = find_tensor(model, edit.tensor)
        if edit.fill == "fresh" and isinstance(owner, _ConvNd) and _is_by_filter(owner, edit):
            edits.setdefault(owner, []).append(edit)
    if not edits:
        return
    with _measured(edits) as strengths:
        evaluate(model, probe)
    for conv, of_conv in edits.items():
        if conv in strengths:
            _scale(tx, model, of_conv, strengths[conv])


def _is_by_filter(conv: _ConvNd, edit: TensorEdit) -> bool:
    """Return whether the edited dimension has one index per filter."""
    return not (conv.transposed and conv.groups > 1)


@contextmanager
def _measured(convs: Iterator[_ConvNd] | Any) -> Iterator[dict[_ConvNd, Tensor]]:
    """Yield conv -> root mean square of the positive outputs of each filter, of later forwards."""
    strengths: dict[_ConvNd, Tensor] = {}

    def measure(conv: Any, args: Any, output: Tensor) -> None:
        channel = output.ndim - conv.weight.ndim + 1  # 0 for an image without a batch
        others = [dim for dim in range(output.ndim) if dim != channel]
        positive = output.detach().clamp(min=0).double()
        strengths[conv] = positive.square().mean(others).sqrt().cpu()

    handles = [conv.register_forward_hook(measure, prepend=True) for conv in convs]
    try:
        yield strengths
    finally:
        for handle in handles:
            handle.remove()


def _scale(
    tx: Transaction, model: nn.Module, edits: Sequence[TensorEdit], strength: Tensor
) -> None:
    """Scale the new entries of the tensors of one conv."""
    is_new = np.zeros(len(strength), bool)
    is_new[edits[0].new] = True
    old = strength[torch.from_numpy(~is_new)]
    new = strength[torch.from_numpy(is_new)]
    live = old[old > 0]
    if not len(live) or not new.isfinite().all() or not live.isfinite().all():
        return
    factors = torch.where(new > 0, live.mean() / new, torch.ones_like(new))
    factors = factors.clamp(1 / MAX_FACTOR, MAX_FACTOR)
    for edit in edits:
        _, tensor = find_tensor(model, edit.tensor)
        shape = [1] * tensor.ndim
        shape[edit.dim] = tensor.shape[edit.dim]
        scale = torch.ones(len(strength), dtype=torch.float64)
        scale[torch.from_numpy(is_new)] = factors
        scaled = tensor.detach() * scale.to(tensor).view(shape)
        replace_data(tx, tensor, scaled, tensor.grad)
