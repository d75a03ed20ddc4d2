"""Where the paths of one edge start: at the rows of a layer's nodes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from .columns import Column

__all__ = [
    "FAN",
    "MIN_PATH_WIDTH",
    "NODE_OVERLAP",
    "PathStarts",
    "fan_out_path_starts",
    "path_starts_of_column",
]

MAX_PATH_WIDTH = 8.4  # px
MIN_PATH_WIDTH = 1.4  # px
PATH_FILL = 0.62  # of the distance between paths
NODE_OVERLAP = 1.0  # px by which a path reaches below the edge of a node
FAN = 14  # paths that converge from a layer to a bundle, or fan out from a few nodes
LONE_ROWS = 3  # the paths of a layer of so few rows fan out to the rows of its reader


@dataclass(frozen=True)
class PathStarts:
    """Where the paths of one edge start, and what they stand for; arrays as in `paths.Paths`."""

    x: np.ndarray
    y: np.ndarray
    width: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def path_starts_of_column(column: Column, max_paths: int, first_node: int) -> PathStarts:
    """Return where paths begin at the right of the nodes of a layer. Each stands for some rows.

    Args:
        column: the nodes of the layer.
        max_paths: the number of paths; a layer with fewer rows has one per row.
        first_node: the index of the first node of the layer in the network.
    """
    n = max(1, min(max_paths, column.rows))
    cuts = np.arange(n + 1) * column.rows // n
    first = cuts[:-1] * column.nodes_per_row
    last = np.minimum(cuts[1:] * column.nodes_per_row, column.n)
    middle = (cuts[:-1] + cuts[1:] - 1) // 2 * column.nodes_per_row
    rightmost = np.minimum(middle + column.nodes_per_row, column.n) - 1
    half = (column.bar or column.size) / 2
    pitch = (column.bottom - column.top) / n
    width = np.full(n, np.clip(PATH_FILL * pitch, MIN_PATH_WIDTH, MAX_PATH_WIDTH))
    x = column.x[rightmost] + half - NODE_OVERLAP
    return PathStarts(x, column.y[middle], width, first_node + first, first_node + last)


def fan_out_path_starts(starts: PathStarts, reader_column: Column) -> PathStarts:
    """Return several paths for each path of a layer with few rows, to spread over the reader."""
    n = len(starts)
    copies = min(FAN, reader_column.rows) // n
    if n > LONE_ROWS or copies < 2:
        return starts
    pitch = (reader_column.bottom - reader_column.top) / (copies * n)
    limit = float(np.clip(PATH_FILL * pitch, MIN_PATH_WIDTH, MAX_PATH_WIDTH))
    fanned = PathStarts(*(np.repeat(getattr(starts, one.name), copies) for one in fields(starts)))
    return replace(fanned, width=np.minimum(fanned.width, limit))
