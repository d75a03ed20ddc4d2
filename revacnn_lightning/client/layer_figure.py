"""A static figure of a layer: every filter's coefficients, gradient and activation."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.client.batch import Batch
from revacnn_lightning.client.svg import COLORS, Figure, image, rectangle, text
from revacnn_lightning.protocol.inspections import LayerDetail
from revacnn_lightning.protocol.messages import LayerInfo

__all__ = ["draw_layer_filters"]

COLUMNS = 16
MAX_FILTERS = 512
CELL, GAP, BAR, MARGIN, HEAD = 40, 8, 3, 16, 58  # pixels
CELL_HEIGHT = CELL + 2 * (BAR + 2) + 14 + GAP
MIN_COLUMNS = 8  # the head needs their width


def draw_layer_filters(detail: LayerDetail, batch: Batch) -> Figure:
    """Return a figure of the filters of a layer, in the order of their indices.

    Below each filter's coefficients are its gradient and activation as bars, relative to the
    layer's largest, and its index.
    """
    layer = next((one for one in batch.structure.layers if one.name == detail.layer), None)
    tiles = _tiles(detail.coefficients.images)
    count = max(len(tiles), 0 if layer is None else len(layer.filter_ids))
    shown = min(count, MAX_FILTERS)
    columns = max(MIN_COLUMNS, min(COLUMNS, shown))
    width = 2 * MARGIN + columns * (CELL + GAP) - GAP
    height = HEAD + -(-shown // columns) * CELL_HEIGHT + MARGIN
    bars = _bars(detail.layer, batch) if layer is not None else []
    parts = _head(detail, layer, width, count)
    for i in range(shown):
        x = MARGIN + i % columns * (CELL + GAP)
        y = HEAD + i // columns * CELL_HEIGHT
        parts += _filter(x, y, i, tiles, bars, layer)
    title = f"Filters of {detail.layer} in batch {detail.step:,}"
    return Figure(title, width, height, parts)


def _head(detail: LayerDetail, layer: LayerInfo | None, width: float, count: int) -> list[str]:
    kind = ""
    if layer is not None:
        kind = f"{layer.module_type} {layer.in_channels} → {layer.out_channels}"
        if layer.kernel_size:
            kind += f", {'×'.join(map(str, layer.kernel_size))}"
    right = width - MARGIN
    note = f"first {MAX_FILTERS} of {count}" if count > MAX_FILTERS else f"batch {detail.step:,}"
    return [
        text(MARGIN, 26, detail.layer, COLORS["text"], size=15, bold=True),
        text(MARGIN, 44, kind, COLORS["muted"]),
        text(right, 26, note, COLORS["muted"], anchor="end"),
        rectangle(right - 130, 37, 10, BAR, COLORS["orange"]),
        text(right - 116, 43, "gradient", COLORS["muted"]),
        rectangle(right - 64, 37, 10, BAR, COLORS["blue"]),
        text(right - 50, 43, "activation", COLORS["muted"]),
    ]


def _filter(
    x: float, y: float, i: int, tiles: np.ndarray, bars: list[tuple[str, np.ndarray]],
    layer: LayerInfo | None,
) -> list[str]:  # fmt: skip
    frozen = layer is not None and i in layer.frozen_filters
    stroke = COLORS["frozen"] if frozen else COLORS["line"]
    parts = [rectangle(x - 0.5, y - 0.5, CELL + 1, CELL + 1, "none", stroke=stroke)]
    if i < len(tiles):
        parts.append(image(x, y, CELL, tiles[i]))
    bottom = y + CELL + 3
    for color, shares in bars:
        parts.append(rectangle(x, bottom, CELL, BAR, COLORS["grid"]))
        parts.append(rectangle(x, bottom, CELL * float(shares[i]), BAR, color))
        bottom += BAR + 2
    parts.append(text(x + CELL / 2, bottom + 9, str(i), COLORS["muted"], size=10, anchor="middle"))
    return parts


def _bars(name: str, batch: Batch) -> list[tuple[str, np.ndarray]]:
    """Return (color, lengths from 0 to 1) of the statistics that were recorded."""
    statistics = batch[name]
    colors = {"gradient": COLORS["orange"], "activation": COLORS["blue"]}
    return [(color, _shares(statistics[key])) for key, color in colors.items() if key in statistics]


def _shares(values: np.ndarray) -> np.ndarray:
    positive = np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), 0)
    largest = float(positive.max(initial=0.0))
    return positive / (largest or 1.0)


def _tiles(images: np.ndarray) -> np.ndarray:
    """Return the coefficients as levels around 128, uint8 (n, h, w) or (n, h, w, 3)."""
    values = np.nan_to_num(np.asarray(images, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim not in (3, 4) or values.size == 0:
        return np.zeros((0, 1, 1), np.uint8)
    largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    levels = 128 + 127 * values / np.where(largest > 0, largest, 1)
    return np.rint(levels).astype(np.uint8)
