"""What each layer of a traced network costs and returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["LayerSizes", "layer_sizes"]


class LayerSizes(NamedTuple):
    """What a layer costs and returns in one sample's forward.

    Attributes:
        macs: multiply-accumulates of its own forward, without those of modules in it.
        output_size: height and width; None if it returns no image, or images of several sizes.
    """

    macs: int = 0
    output_size: tuple[int, int] | None = None


def layer_sizes(groups: ChannelGroups) -> dict[str, LayerSizes]:
    """Return the sizes of each module that the traced forwards have called."""
    macs: Counter[str] = Counter()
    for cost in groups.op_costs:
        macs[cost.modules[-1] if cost.modules else ""] += cost.macs
    return {
        name: LayerSizes(round(macs[name] / groups.samples), _image_size(out for _, out in shapes))
        for name, shapes in groups.shapes.items()
    }


def _image_size(shapes: Iterable[tuple[int, ...] | None]) -> tuple[int, int] | None:
    """Return the height and width of outputs (B, C, H, W) of a single size, else None."""
    sizes = {shape[2:] if shape is not None and len(shape) == 4 else () for shape in shapes}
    size = sizes.pop() if len(sizes) == 1 else ()
    return (size[0], size[1]) if len(size) == 2 else None
