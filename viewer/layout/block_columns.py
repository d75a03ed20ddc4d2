"""A closed block as one drawing: its layers as cells of a grid, each with a few bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .columns import BAR_WIDTH, Column, bar_column

__all__ = ["ClosedBlockColumns", "place_closed_block"]

PADDING = 5.0  # px between the frame of a block and its cells
MIN_CELL = 6.0  # px: width of a cell; with less, the layers are in several rows
MAX_CELL = 22.0  # px
CELL_FILL = 0.72  # of a cell's width for its bars
ROW_GAP = 7.0  # px
BAR_PITCH = 5.0  # px
MAX_BARS = 24  # of one layer
MAX_BARS_OF_BLOCKS = 2400  # of all closed blocks
MIN_BARS = 3  # of one layer
SMALLEST = 0.4  # height of a layer with very few filters, as a share of its cell


@dataclass(frozen=True)
class ClosedBlockColumns:
    """The columns of the layers of a closed block, centered on x = 0.

    Attributes:
        columns: one per layer.
        width, height: the size of the frame around them, px.
    """

    columns: list[Column]
    width: float
    height: float


def place_closed_block(
    first_layer: int,
    widths: Sequence[int],
    *,
    max_width: float,
    center_y: float,
    height: float,
    n_folded_layers: int,
) -> ClosedBlockColumns:
    """Return the columns of the layers of a closed block, in a grid.

    Args:
        first_layer: the index of the first layer of the block.
        widths: the number of filters of each layer of the block.
        max_width: the available width, px.
        center_y: the y coordinate of the center of the block, px.
        height: the height of the frame of the block, px.
        n_folded_layers: the number of layers in all closed blocks.
    """
    across, rows = _grid(len(widths), max(MIN_CELL, max_width - 2 * PADDING))
    cell_width = min(MAX_CELL, max(MIN_CELL, max_width - 2 * PADDING) / across)
    cell_height = (height - 2 * PADDING - ROW_GAP * (rows - 1)) / rows
    max_bars = min(MAX_BARS, max(MIN_BARS, MAX_BARS_OF_BLOCKS // max(1, n_folded_layers)))
    columns = []
    for i, n in enumerate(widths):
        row, place = divmod(i, across)
        in_row = min(across, len(widths) - row * across)
        bars_height = cell_height * (SMALLEST + (1 - SMALLEST) * math.sqrt(n / max(widths)))
        y = center_y - height / 2 + PADDING + cell_height / 2 + row * (cell_height + ROW_GAP)
        bars = max(1, min(max_bars, int(bars_height / BAR_PITCH)))
        bar_width = min(BAR_WIDTH, cell_width * CELL_FILL)
        column = bar_column(first_layer + i, n, bars, bar_width, y, bars_height)
        columns.append(column.shifted((place - (in_row - 1) / 2) * cell_width))
    return ClosedBlockColumns(columns, across * cell_width + 2 * PADDING, height)


def _grid(n: int, room: float) -> tuple[int, int]:
    """Return how many of ``n`` cells are side by side, and in how many rows."""
    rows = -(-n // max(1, min(n, int(room / MIN_CELL))))
    return -(-n // rows), rows
