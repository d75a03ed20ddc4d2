"""How wide the headers of a roomy layout are: a name, and the size of the layer or block."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from revacnn_lightning.protocol.messages import Structure

from .folding import LayoutUnit

__all__ = ["are_apart", "header_span"]

TITLE_CHARACTER = 8.0  # px: average width of a character of the name, in a wide font
SIZE_CHARACTER = 5.2  # px: of the line below it
OPEN_BUTTON = 12.0  # px beside the name of a closed block
GAP = 4.0  # px between two headers, at least

Span = tuple[float, float]  # left, right


def header_span(structure: Structure, unit: LayoutUnit, label: str, middle: float) -> Span:
    """Return about where the header of a unit begins and ends, px."""
    layers = [structure.layers[i] for i in unit.layers]
    n_filters = sum(len(layer.filter_ids) for layer in layers)
    kernel = "×".join(map(str, layers[0].kernel_size))
    size = f"{n_filters} filters · {kernel}" if kernel else f"{n_filters} filters"
    if unit.is_block:
        size = f"{len(layers)} layers · {n_filters} filters"
    title = len(label) * TITLE_CHARACTER + unit.is_block * OPEN_BUTTON
    half = max(title, len(size) * SIZE_CHARACTER) / 2
    return middle - half, middle + half


def are_apart(spans: Iterable[Span]) -> bool:
    """Return whether no header touches the next one."""
    return all(right + GAP <= left for (_, right), (left, _) in pairwise(sorted(spans)))
