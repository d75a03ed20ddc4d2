"""Marks of the modules between the layers, across the paths: pooling, normalization and others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from revacnn_lightning.protocol.inspections import FilterlessModule
from revacnn_lightning.protocol.messages import Structure

from .input_output import InputOutputPlacement
from .network import NetworkLayout

__all__ = ["ModuleMark", "place_module_marks"]

FIRST, LAST = 0.1, 0.86  # the part of a gap in which marks stand, as shares of it
MAX_PITCH, MIN_PITCH = 22.0, 7.0  # px between marks; with less, several modules share one
MIN_ROOM = 3.0  # px; with less, there is no mark
LABEL_PITCH = 13.0  # px: with less, marks have no label
LABEL_HEIGHT = 64.0  # px: lower marks have none
MARGIN = 3.0  # px above and below the column
INPUT_GAP = 8.0  # px between the channels' nodes and the first mark
OUTPUT_GAP = 9.0
INPUT_UNIT = -1


@dataclass(frozen=True)
class ModuleMark:
    """A vertical line across the paths, which stands for modules between two layers, px.

    Attributes:
        modules: the indices of the modules that the line stands for.
        has_label: whether there is room for a label.
    """

    x: float
    top: float
    bottom: float
    modules: tuple[int, ...]
    has_label: bool


def place_module_marks(
    structure: Structure,
    layout: NetworkLayout,
    input_output: InputOutputPlacement,
    modules: Sequence[FilterlessModule],
) -> list[ModuleMark]:
    """Return the marks of the modules between the layers. Those inside a closed block have none."""
    index = {layer.name: i for i, layer in enumerate(structure.layers)}
    by_unit: dict[int, list[int]] = defaultdict(list)
    for i, module in enumerate(modules):
        if not module.after:
            by_unit[INPUT_UNIT].append(i)
        elif module.after in index:
            layer = index[module.after]
            unit = layout.unit_of_layer[layer]
            if not layout.units[unit].is_block or layer == layout.units[unit].end - 1:
                by_unit[unit].append(i)
    marks: list[ModuleMark] = []
    for unit, some in sorted(by_unit.items()):
        marks += _marks_in(
            _gap(layout, input_output, unit), some, can_label=layout.density == "roomy"
        )
    return marks


def _gap(
    layout: NetworkLayout, input_output: InputOutputPlacement, unit: int
) -> tuple[float, float, float, float]:
    """Return the space behind a unit: left, right, top and bottom."""
    if unit == INPUT_UNIT:
        boxes = zip(layout.boxes, layout.ranks, strict=True)
        first = [box for box, rank in boxes if rank == layout.input_rank]
        left = input_output.channel_x + INPUT_GAP
        return left, min(b.left for b in first), min(b.top for b in first), max(
            b.bottom for b in first
        )  # fmt: skip
    rank, box = layout.ranks[unit], layout.boxes[unit]
    pairs = list(zip(layout.boxes, layout.ranks, strict=True))
    left = max(other.right for other, place in pairs if place == rank)
    following = [other.left for other, place in pairs if place == rank + 1]
    return left, min(following, default=input_output.output_x - OUTPUT_GAP), box.top, box.bottom


def _marks_in(
    gap: tuple[float, float, float, float], modules: Sequence[int], *, can_label: bool
) -> list[ModuleMark]:
    left, right, top, bottom = gap
    room = (right - left) * (LAST - FIRST)
    n = min(len(modules), max(1, int(room / MIN_PITCH)))
    if room < MIN_ROOM:
        return []
    pitch = min(MAX_PITCH, room / n)
    middle = left + (right - left) * (FIRST + LAST) / 2
    has_label = can_label and pitch >= LABEL_PITCH and bottom - top >= LABEL_HEIGHT
    marks = []
    for i in range(n):
        some = modules[i * len(modules) // n : (i + 1) * len(modules) // n]
        x = middle + (i - (n - 1) / 2) * pitch
        marks.append(ModuleMark(x, top - MARGIN, bottom + MARGIN, tuple(some), has_label))
    return marks
