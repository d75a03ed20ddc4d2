"""What each layer of a traced network costs and returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.telemetry.unit_layers import UnitLayer, kernel_size

__all__ = ["LayerCostAndSize", "layer_costs_and_sizes"]


class LayerCostAndSize(NamedTuple):
    """What a layer costs and returns in one sample's forward.

    Attributes:
        macs: multiply-accumulates of its own forward, without those of modules in it.
        output_size: the sizes of its output along all dimensions but batch and filters. None if
            it is no layer with filters, or returns outputs of several sizes.
    """

    macs: int = 0
    output_size: tuple[int, ...] | None = None


def layer_costs_and_sizes(
    channel_groups: ChannelGroups, model: nn.Module
) -> dict[str, LayerCostAndSize]:
    """Return what each module of the model that the traced forwards called costs and returns."""
    macs: Counter[str] = Counter()
    for cost in channel_groups.op_costs:
        macs[cost.modules[-1] if cost.modules else ""] += cost.macs
    return {
        name: LayerCostAndSize(
            round(macs[name] / channel_groups.samples),
            _output_size(model.get_submodule(name), [out for _, out in shapes]),
        )
        for name, shapes in channel_groups.shapes.items()
    }


def _output_size(
    module: nn.Module, shapes: Iterable[tuple[int, ...] | None]
) -> tuple[int, ...] | None:
    """Return the size of outputs (B, C, ...), or (B, ..., C) of linear layers, if it is one."""
    if not isinstance(module, UnitLayer):
        return None
    sizes = {_positions(module, shape) for shape in shapes}
    return sizes.pop() if len(sizes) == 1 else None


def _positions(layer: UnitLayer, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    if isinstance(layer, nn.Linear):
        return shape[1:-1] if len(shape) > 1 else None
    return shape[2:] if len(shape) == len(kernel_size(layer)) + 2 else None
