"""Paths from the nodes of a layer to the layers that read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from .columns import Column
from .topology import Edge

__all__ = ["MAX_PATHS", "Paths", "route_paths"]

MAX_PATHS = 2500  # more cannot be redrawn at the data rate: 20 000 take 0.6 s
FEW_NODES = 150  # up to this many, every node has a path to each of its readers
# Paths between parallel branches cross. The larger this exponent, the fewer are drawn.
CROSSING_EXPONENT = 1.5


@dataclass(frozen=True)
class Paths:
    """Start and end of each path, px, and the nodes it stands for.

    Attributes:
        x, y: start, float (paths,).
        x1, y1: end, float (paths,).
        first, last: range of nodes of the whole network, int (paths,); ``last`` is exclusive.
    """

    x: np.ndarray
    y: np.ndarray
    x1: np.ndarray
    y1: np.ndarray
    first: np.ndarray
    last: np.ndarray


def route_paths(columns: list[Column], edges: list[Edge]) -> Paths:
    """Return paths from each node to the proportional height in the columns that read it.

    There are at most `MAX_PATHS`. If several layers read a column, its paths are divided among
    them, and each stands for several adjacent nodes: drawing all nodes' paths to each reader would
    fill the area, unless there are few.
    """
    n_readers, n_sources = Counter(a for a, _ in edges), Counter(b for _, b in edges)
    total = sum(columns[a].n for a in n_readers)
    share = min(1.0, MAX_PATHS / max(1, total))
    offsets = np.cumsum([0] + [column.n for column in columns])
    parts = []
    for a, b in edges:
        if total <= FEW_NODES:
            exponent = 0.0
        else:
            exponent = CROSSING_EXPONENT if n_sources[b] > 1 else 1.0
        count = max(1, int(columns[a].n * share / n_readers[a] ** exponent))
        parts.append(_connect(columns[a], columns[b], count, int(offsets[a])))
    if not parts:
        empty = np.zeros(0)
        return Paths(empty, empty, empty, empty, empty.astype(int), empty.astype(int))
    return Paths(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _connect(start: Column, end: Column, count: int, offset: int) -> tuple[np.ndarray, ...]:
    """Return the fields of `Paths` for ``count`` paths between two columns.

    Args:
        offset: index of the first node of ``start``.
    """
    cuts = np.arange(count + 1) * start.n // count
    order = np.argsort(start.y, kind="stable")
    relative_height = np.empty(start.n)
    relative_height[order] = (np.arange(start.n) + 0.5) / start.n
    middle = (cuts[:-1] + cuts[1:] - 1) // 2
    end_y = end.y.min() + (end.y.max() - end.y.min()) * relative_height[middle]
    end_x = np.full(count, end.left - 2)
    return start.x[middle], start.y[middle], end_x, end_y, offset + cuts[:-1], offset + cuts[1:]
