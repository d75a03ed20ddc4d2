"""Where the paths of one edge start: at the rows of a layer's nodes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from .columns import Column

__all__ = [
    "FAN",
    "MIN_PATH_WIDTH",
    "NODE_OVERLAP",
    "Strands",
    "fan_out",
    "leave_column",
]

MAX_PATH_WIDTH = 8.4  # px
MIN_PATH_WIDTH = 1.4  # px
PATH_FILL = 0.62  # of the distance between paths
NODE_OVERLAP = 1.0  # px by which a path reaches below the edge of a node
FAN = 14  # paths that converge from a layer to a bundle, or fan out from a few nodes
LONE_ROWS = 3  # the paths of a layer of so few rows fan out to the rows of its reader


@dataclass(frozen=True)
class Strands:
    """Where the paths of one edge start, and what they stand for; arrays as in `paths.Paths`."""

    x: np.ndarray
    y: np.ndarray
    width: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def leave_column(column: Column, n: int, offset: int) -> Strands:
    """Return the start of ``n`` paths at the right of a layer's rows, each of some of its rows.

    Args:
        offset: index of the first node of the layer.
    """
    n = max(1, min(n, column.rows))
    cuts = np.arange(n + 1) * column.rows // n
    first = cuts[:-1] * column.across
    last = np.minimum(cuts[1:] * column.across, column.n)
    middle = (cuts[:-1] + cuts[1:] - 1) // 2 * column.across
    rightmost = np.minimum(middle + column.across, column.n) - 1
    half = (column.bar or column.size) / 2
    pitch = (column.bottom - column.top) / n
    width = np.full(n, np.clip(PATH_FILL * pitch, MIN_PATH_WIDTH, MAX_PATH_WIDTH))
    x = column.x[rightmost] + half - NODE_OVERLAP
    return Strands(x, column.y[middle], width, offset + first, offset + last)


def fan_out(strands: Strands, reader: Column) -> Strands:
    """Return several paths per row of a layer with few rows: each is read by all of the reader."""
    n = len(strands)
    copies = min(FAN, reader.rows) // n
    if n > LONE_ROWS or copies < 2:
        return strands
    pitch = (reader.bottom - reader.top) / (copies * n)
    limit = float(np.clip(PATH_FILL * pitch, MIN_PATH_WIDTH, MAX_PATH_WIDTH))
    fanned = Strands(*(np.repeat(getattr(strands, one.name), copies) for one in fields(strands)))
    return replace(fanned, width=np.minimum(fanned.width, limit))
