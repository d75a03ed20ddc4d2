"""One layer as a column: dots where there is room for them, else a strip of bars."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

__all__ = ["Column", "NodeState", "comfortable_pitch", "dot_pitch", "dots", "strip"]

PITCH = 8.6  # px between dots where there is room
LARGEST_PITCH = 26.0  # px, in small networks with room to spare
SPARE_SHARE = 0.15  # of a layer's width that dots may take when they are larger than need be
OPEN_PITCH = 10.5  # px, in an opened layer
SMALLEST_PITCH = 4.5  # px; below, single dots cannot be told apart or hit
SLOT_SHARE = 0.40  # of a layer's width that its dots may take; the rest is for the paths
BAR_WIDTH = 16.0  # px


class NodeState(IntEnum):
    """How a node is drawn. The numbers are known to the drawing in ``glyphs/dist``."""

    NORMAL = 0
    DEAD = 1
    NEW = 2
    STAGED = 3
    COUPLED = 4  # goes together with what is staged
    FROZEN = 5
    ABSENT = 6  # did not exist yet at the moment shown


@dataclass(frozen=True)
class Column:
    """One layer's nodes. Node ``i`` shows the filters ``first[i] : first[i + 1]``."""

    layer: int
    x: np.ndarray  # (nodes,) px
    y: np.ndarray
    size: float  # px: diameter of a dot, height of a bar
    bar: float  # px: width of the bars; 0 for dots
    first: np.ndarray  # (nodes + 1,)

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def left(self) -> float:
        return float(self.x.min()) - (self.bar or self.size) / 2

    @property
    def right(self) -> float:
        return float(self.x.max()) + (self.bar or self.size) / 2

    @property
    def top(self) -> float:
        return float(self.y.min()) - self.size / 2

    @property
    def bottom(self) -> float:
        return float(self.y.max()) + self.size / 2

    @property
    def center(self) -> float:
        return (self.left + self.right) / 2


def dot_pitch(n: int, slot: float, height: float, largest: float = PITCH) -> float:
    """The largest pitch at which ``n`` dots fit a slot; 0 if none does."""
    for pitch in np.arange(largest, SMALLEST_PITCH - 1e-6, -0.2):
        columns = np.ceil(n * pitch / height)
        if columns * pitch <= slot * SLOT_SHARE or columns == 1:
            return float(pitch)
    return 0.0


def comfortable_pitch(sizes: list[tuple[int, float, float]]) -> float:
    """The largest pitch that suits all layers, given as (filters, slot, height) of each."""
    for pitch in np.arange(LARGEST_PITCH, PITCH, -0.4):
        if all(
            np.ceil(n * pitch / height) * pitch <= max(slot * SPARE_SHARE, pitch)
            for n, slot, height in sizes
        ):
            return float(pitch)
    return PITCH


def dots(layer: int, n: int, pitch: float, center: float, middle: float, height: float) -> Column:
    """A grid of dots, row by row, centred on (center, middle)."""
    across = max(1, int(np.ceil(n * pitch / height)))
    down = int(np.ceil(n / across))
    i = np.arange(n)
    return Column(
        layer=layer,
        x=center + (i % across - (across - 1) / 2) * pitch,
        y=middle + (i // across - (down - 1) / 2) * pitch,
        size=pitch * (0.68 if pitch < 12 else 0.62),
        bar=0.0,
        first=np.arange(n + 1),
    )


def strip(
    layer: int, n: int, bars: int, width: float, center: float, middle: float, height: float
) -> Column:
    """Bars from top to bottom, each standing for a run of neighbouring filters."""
    bars = min(n, bars)
    pitch = height / bars
    return Column(
        layer=layer,
        x=np.full(bars, center),
        y=middle - height / 2 + (np.arange(bars) + 0.5) * pitch,
        size=max(1.0, pitch * 0.72),
        bar=width,
        first=np.arange(bars + 1) * n // bars,
    )
