"""One layer as a column of nodes: a grid of dots, or bars if there is too little space for dots."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

__all__ = [
    "BAR_WIDTH",
    "DOT_PITCH",
    "EXPANDED_PITCH",
    "SLOT_SHARE",
    "Column",
    "NodeState",
    "bar_column",
    "common_pitch_of_single_columns",
    "dot_column",
    "fit_dot_pitch",
]

DOT_PITCH = 8.6  # px between dots
MAX_DOT_PITCH = 26.0  # px, in small networks
MIN_DOT_PITCH = 4.5  # px; with less, dots cannot be distinguished or clicked
MIN_SINGLE_PITCH = 5.4  # px; with less, a layer has dots side by side
EXPANDED_PITCH = 10.5  # px, in an expanded layer
SLOT_SHARE = 0.40  # of a layer's width for its dots; the rest is for the paths
BAR_WIDTH = 16.0  # px


class NodeState(IntEnum):
    """How a node is drawn. The page gets names and numbers from `viewer/tab/page_assets.py`."""

    NORMAL = 0
    DEAD = 1
    NEW = 2
    STAGED = 3
    COUPLED = 4  # with a filter staged for removal
    FROZEN = 5
    ABSENT = 6  # did not exist at the time shown


@dataclass(frozen=True)
class Column:
    """The nodes of one layer.

    Attributes:
        layer: index of the layer.
        x, y: centers of the nodes, px, (nodes,).
        size: diameter of a dot, or height of a bar, px.
        bar: width of the bars, px; 0 for dots.
        first: node ``i`` shows filters ``first[i] : first[i + 1]``, int (nodes + 1,).
    """

    layer: int
    x: np.ndarray
    y: np.ndarray
    size: float
    bar: float
    first: np.ndarray

    @property
    def n(self) -> int:
        """Number of nodes."""
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

    @property
    def nodes_per_row(self) -> int:
        """Number of nodes side by side."""
        return int(np.count_nonzero(self.y == self.y[0]))

    @property
    def rows(self) -> int:
        """Number of rows of nodes."""
        return -(-self.n // self.nodes_per_row)

    def shifted(self, dx: float) -> Column:
        """Return the column moved to the right by ``dx`` px."""
        return replace(self, x=self.x + dx)


def fit_dot_pitch(
    n_dots: int, slot_width: float, height: float, max_pitch: float = DOT_PITCH
) -> float:
    """Return the largest pitch at which ``n_dots`` dots fit a slot, px; 0 if none does.

    Dots are side by side only where the height does not suffice for one below the other.

    Args:
        slot_width: the width of the slot, px.
        height: the height of the slot, px.
        max_pitch: the largest pitch to return, px.
    """
    if height / n_dots >= MIN_SINGLE_PITCH:
        return min(max_pitch, height / n_dots)
    for pitch in np.arange(min(max_pitch, DOT_PITCH), MIN_DOT_PITCH - 1e-6, -0.2):
        nodes_per_row = np.ceil(n_dots * pitch / height)
        if nodes_per_row == 1 or nodes_per_row * pitch <= slot_width * SLOT_SHARE:
            return float(pitch)
    return 0.0


def common_pitch_of_single_columns(counts_and_heights: list[tuple[int, float]]) -> float:
    """Return the pitch at which all layers that fit a single column of dots are one, px.

    Args:
        counts_and_heights: the number of filters and the height (px) of each layer.
    """
    single = [height / n for n, height in counts_and_heights if height / n >= MIN_SINGLE_PITCH]
    return float(np.clip(min(single, default=DOT_PITCH), DOT_PITCH, MAX_DOT_PITCH))


def dot_column(layer: int, n_dots: int, pitch: float, middle: float, height: float) -> Column:
    """Return a grid of ``n_dots`` dots, row by row, centered on x = 0 and y = ``middle``."""
    nodes_per_row = max(1, int(np.ceil(n_dots * pitch / height - 1e-6)))
    down = int(np.ceil(n_dots / nodes_per_row))
    i = np.arange(n_dots)
    return Column(
        layer=layer,
        x=(i % nodes_per_row - (nodes_per_row - 1) / 2) * pitch,
        y=middle + (i // nodes_per_row - (down - 1) / 2) * pitch,
        size=pitch * (0.68 if pitch < 12 else 0.62),
        bar=0.0,
        first=np.arange(n_dots + 1),
    )


def bar_column(
    layer: int, n_filters: int, n_bars: int, width: float, middle: float, height: float
) -> Column:
    """Return ``n_bars`` bars for ``n_filters`` filters, centered on x = 0 and y = ``middle``.

    Each bar stands for a range of adjacent filters.
    """
    n_bars = min(n_filters, n_bars)
    pitch = height / n_bars
    return Column(
        layer=layer,
        x=np.zeros(n_bars),
        y=middle - height / 2 + (np.arange(n_bars) + 0.5) * pitch,
        size=max(1.0, pitch * 0.72),
        bar=width,
        first=np.arange(n_bars + 1) * n_filters // n_bars,
    )
