"""Multiply-accumulates (MACs) of one sample's forward, now and after a plan."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from revacnn_lightning.steering.blocks import make_block
from revacnn_lightning.steering.planning.plan import EditPlan, LayerEdit, old_indices_and_new_mask
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.records import OpCost
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["count_macs", "count_macs_after"]


def count_macs(channel_groups: ChannelGroups) -> int:
    """Return the MACs of one sample in the probe's first forward, in training mode."""
    return round(sum(cost.macs for cost in channel_groups.op_costs) / channel_groups.samples)


def count_macs_after(channel_groups: ChannelGroups, plan: EditPlan, model: nn.Module) -> int:
    """Return the MACs after the plan. ``model`` is the traced model, not edited yet."""
    copies = np.ones(len(channel_groups.arrival), int)  # of each channel after the edit; 0: removed
    for edit in plan.tensors:
        dimension = channel_groups.dimension(edit.tensor, edit.dim)
        copies[dimension.start : dimension.stop] = np.bincount(
            old_indices_and_new_mask(edit)[0], minlength=dimension.size
        )
    total = 0
    for cost in channel_groups.op_costs:
        total += _resized(cost, copies)
        total += sum(_change(cost, layer, model) for layer in plan.layers)
    return round(total / channel_groups.samples)


def _resized(cost: OpCost, copies: np.ndarray) -> int:
    macs = cost.macs
    for channels in cost.factors:
        macs = macs // len(channels) * int(copies[channels].sum())
    return macs


def _change(cost: OpCost, edit: LayerEdit, model: nn.Module) -> int:
    """Return by how many MACs an inserted or removed layer changes the cost of a call."""
    if edit.action == "insert":
        is_host = cost.modules[-1:] == (edit.host,)
        return cost.places * _block_macs(edit) if is_host else 0
    if edit.host not in cost.modules:
        return 0
    if edit.kind == "identity":
        return -cost.macs
    replaced = model.get_submodule(edit.host)  # a conv; its 1x1 replacement has the same stride
    assert isinstance(replaced, nn.Conv2d)
    return cost.macs // math.prod(replaced.kernel_size) - cost.macs


def _block_macs(edit: LayerEdit) -> int:
    """Return the MACs of an inserted block per position; its layers keep the positions."""
    with torch.device("meta"):
        block = make_block(edit.kind, edit.channels, edit.kernel, edit.dims)
    return sum(m.weight.numel() for m in block.modules() if isinstance(m, UnitLayer))
