"""Multiply-accumulates (MACs) of a sample's forward: as it is, and as a plan would make it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from revacnn_lightning.steering.execution import layer_edits as layers
from revacnn_lightning.steering.planning.plan import EditPlan, LayerEdit, order_of
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.records import OpCost

__all__ = ["macs_of", "macs_with"]


def macs_of(channels: ChannelGroups) -> int:
    """Multiply-accumulates of one sample in the probe's first forward, as it is when training."""
    return round(sum(product.macs for product in channels.products) / channels.samples)


def macs_with(channels: ChannelGroups, plan: EditPlan, model: nn.Module) -> int:
    """The same after the edit. ``model`` is the one that was traced, not edited yet."""
    copies = np.ones(len(channels.arrival), int)  # of each atom; 0: it goes
    for edit in plan.tensors:
        site = channels.site(edit.tensor, edit.dim)
        copies[site.start : site.stop] = np.bincount(order_of(edit)[0], minlength=site.size)
    total = 0
    for product in channels.products:
        total += _resized(product, copies)
        total += sum(_growth(product, layer, model) for layer in plan.layers)
    return round(total / channels.samples)


def _resized(product: OpCost, copies: np.ndarray) -> int:
    macs = product.macs
    for atoms in product.sides:
        macs = macs // len(atoms) * int(copies[atoms].sum())
    return macs


def _growth(product: OpCost, edit: LayerEdit, model: nn.Module) -> int:
    """By how much a layer that is put in or taken out changes what a call costs."""
    if edit.action == "insert":
        follows = product.modules[-1:] == (edit.host,)
        return product.places * _block_weights(edit) if follows else 0
    if edit.host not in product.modules:
        return 0
    if edit.kind == "identity":
        return -product.macs
    replaced = model.get_submodule(edit.host)  # a conv, whose 1x1 stand-in has the same stride
    assert isinstance(replaced, nn.Conv2d)
    return product.macs // math.prod(replaced.kernel_size) - product.macs


def _block_weights(edit: LayerEdit) -> int:
    """Multiply-accumulates of an inserted block per pixel: its convs keep height and width."""
    with torch.device("meta"):
        block = layers.BLOCKS[edit.kind](edit.channels, edit.kernel)
    return sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Conv2d))
