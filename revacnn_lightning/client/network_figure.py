"""A static figure of a network: one row per layer, one cell per filter."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.client.batch import Batch
from revacnn_lightning.client.svg import COLORS, Figure, rectangle, text
from revacnn_lightning.diagnostics.verdicts import NOTHING_WATCHED

__all__ = ["draw_network_figure"]

WIDTH, MARGIN, HEAD, ROW, NAME = 760, 16, 62, 22, 200  # pixels
STRIP, GAP = 8, 1  # height of one of the two strips of a row, pixels
MAX_CELL = 14  # pixels
MAX_LAYERS = 200
STATISTICS = (("gradient", "orange"), ("activation", "blue"))


def draw_network_figure(batch: Batch) -> Figure:
    """Return a figure with a row per layer: each filter's gradient and activation as colored cells.

    Colors are relative to the layer's largest value. Layers with more filters than pixels show the
    largest value of adjacent filters.
    """
    layers = batch.structure.layers[:MAX_LAYERS]
    height = HEAD + max(1, len(layers)) * ROW + MARGIN
    parts = _head(batch)
    if not layers:
        note = f"{NOTHING_WATCHED[0].upper()}{NOTHING_WATCHED[1:]}."
        parts.append(text(MARGIN, HEAD + 13, note, COLORS["muted"]))
    for i, layer in enumerate(layers):
        y = HEAD + i * ROW
        name = layer.name if len(layer.name) <= 28 else f"…{layer.name[-27:]}"
        parts.append(text(MARGIN, y + 13, name, COLORS["text"]))
        count = str(len(layer.filter_ids))
        parts.append(text(NAME + 20, y + 13, count, COLORS["muted"], anchor="end"))
        for j, (statistic, color) in enumerate(STATISTICS):
            values = batch[layer.name].get(statistic)
            if values is not None:
                parts += _strip(y + j * (STRIP + GAP), values, COLORS[color])
    title = f"{batch.structure.model} in batch {batch.step:,}"
    return Figure(title, WIDTH, height, parts)


def _head(batch: Batch) -> list[str]:
    right = WIDTH - MARGIN
    total = len(batch.structure.layers)
    facts = f"{batch.structure.parameter_count:,} parameters, batch {batch.step:,}"
    facts += "" if batch.loss is None else f", loss {batch.loss:.4g}"
    facts += f", first {MAX_LAYERS} of {total} layers" if total > MAX_LAYERS else ""
    return [
        text(MARGIN, 26, batch.structure.model, COLORS["text"], size=15, bold=True),
        text(MARGIN, 44, facts, COLORS["muted"]),
        rectangle(right - 130, 37, 10, 8, COLORS["orange"]),
        text(right - 116, 45, "gradient", COLORS["muted"]),
        rectangle(right - 64, 37, 10, 8, COLORS["blue"]),
        text(right - 50, 45, "activation", COLORS["muted"]),
    ]


def _strip(y: float, values: np.ndarray, color: str) -> list[str]:
    left, available = NAME + 30, WIDTH - MARGIN - NAME - 30
    positive = np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), 0)
    if len(positive) > available:  # one cell per pixel
        edges = np.linspace(0, len(positive), available + 1).astype(int)
        positive = np.maximum.reduceat(positive, edges[:-1])
    shares = positive / (float(positive.max(initial=0.0)) or 1.0)
    cell = min(MAX_CELL, available / max(1, len(shares)))
    gap = GAP if cell >= 4 else 0
    parts = [rectangle(left, y, cell * len(shares) - gap, STRIP, COLORS["grid"])]
    for i, share in enumerate(shares):
        if share > 0.01:
            parts.append(
                f'<rect x="{left + i * cell:.5g}" y="{y:g}" width="{cell - gap:.3g}" '
                f'height="{STRIP}" fill="{color}" fill-opacity="{share:.2f}"/>'
            )
    return parts
