"""Where the input and the outputs of the network are: left and right of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from revacnn_lightning.protocol.messages import Structure

from .boxes import Box
from .columns import Column
from .input_output_space import InputOutputSpace
from .network import NetworkLayout
from .path_starts import NODE_OVERLAP
from .paths import Paths, concatenate_paths

__all__ = [
    "NO_NODE",
    "InputOutputDimensions",
    "InputOutputPlacement",
    "guess_input_readers",
    "place_input_output",
]

NO_NODE = -2  # `Paths.first` of a path that begins at no node
EDGE = 10.0  # px between the border of the view and what stands there
CHANNEL_GAP = 12.0  # px between the picture and the nodes of its channels
CHANNEL_PITCH = 11.0  # px
INPUT_STRANDS = 24  # paths of all channels to a reader, about
STRANDS_PER_CHANNEL = 8
BESIDE_PATHS = (0.22, 0.74)  # of the height: an input between columns, and a generated image
BELOW_PICTURE = 70.0  # px for what stands below an input between columns
MIN_PICTURE = 20.0  # px
OUTPUT_STRANDS = 36  # paths of a layer to the outputs, at most
OUTPUT_PITCH = 23.0  # px between outputs
MIN_OUTPUT_PITCH = 13.5  # px, where the height is small
MORE_HEIGHT = 20.0  # px below the last output, for "+9 more"
# px above the columns where the title of the outputs ends, which have no buttons below it
BELOW_TITLE = {"roomy": 28.0, "normal": 16.0, "crowded": 0.0}
SPREAD = 10.0  # px: ends of the paths to one output
INPUT_WIDTH = (1.4, 5.0)  # px of a path at full weight


@dataclass(frozen=True)
class InputOutputDimensions:
    """Sizes and counts that the positions of the input and the outputs depend on.

    Attributes:
        size: height and width of the picture; (0, 0) if there is none.
        channels: the number of nodes of the input.
        outputs: the number of nodes of the outputs; 0 if the network has not been run.
        readers: indices of the layers that read the input.
        output_layers: indices of the layers that the outputs are computed from.
        has_more: whether there are more outputs than these, which a line below says.
        has_generated: whether the readers of the input also read an image that is computed.
    """

    size: tuple[int, int] = (0, 0)
    channels: int = 0
    outputs: int = 0
    readers: tuple[int, ...] = ()
    output_layers: tuple[int, ...] = ()
    has_more: bool = False
    has_generated: bool = False


@dataclass(frozen=True, eq=False)
class InputOutputPlacement:
    """Where the input and the outputs are, px.

    Attributes:
        picture: the frame of the picture of the input.
        channel_x, channel_y: centers of the channels' nodes.
        output_x, output_y: centers of the outputs' nodes.
        paths: the paths from the input, then those to the outputs.
        channels: the channel of each path from the input.
        left, right: width of the space of the input and of the outputs.
        input_x: where the space of the input begins.
        generated: the frame of the generated image; None if there is none.
        has_words: whether there is room for words behind a probability.
    """

    picture: Box
    channel_x: float
    channel_y: np.ndarray
    output_x: float
    output_y: np.ndarray
    paths: Paths
    channels: np.ndarray
    left: float
    right: float
    input_x: float = 0.0
    generated: Box | None = None
    has_words: bool = False


def guess_input_readers(structure: Structure, layout: NetworkLayout, n_channels: int) -> list[int]:
    """Return the layers that probably read the input: they read no layer and fit its channels."""
    return [
        i
        for i, layer in enumerate(structure.layers)
        if layout.ranks[layout.unit_of_layer[i]] == 0 and layer.in_channels == n_channels
        and not any(reader == i for _, reader in structure.edges)
    ]  # fmt: skip


def place_input_output(
    layout: NetworkLayout, dimensions: InputOutputDimensions
) -> InputOutputPlacement:
    """Return the positions of the input and the outputs beside the columns of a layout."""
    space = layout.space
    middle = (layout.top + max(layout.top + 60, layout.height - layout.bottom)) / 2
    room = max(60.0, layout.height - layout.top - layout.bottom)
    of_input, of_generated = middle, middle
    if layout.input_rank:
        of_input, of_generated = (layout.top + share * room for share in BESIDE_PATHS)
        largest = max(MIN_PICTURE, of_generated - of_input - BELOW_PICTURE)
        space = replace(space, picture=min(space.picture, largest))
    start = layout.input_x + EDGE
    picture = _picture(space, dimensions, start, of_input)
    generated = (
        _picture(space, dimensions, start, of_generated) if dimensions.has_generated else None
    )
    channel_x = start + space.picture + CHANNEL_GAP
    pitch = min(CHANNEL_PITCH, room / max(1, dimensions.channels))
    channel_y = _spread(dimensions.channels, pitch, of_input)
    output_x = layout.width - space.right + space.way
    end = layout.height - dimensions.has_more * MORE_HEIGHT
    output_y = _output_y(dimensions.outputs, layout.top, end - space.facts, middle)
    output_y = _inside(output_y, layout.top - BELOW_TITLE[layout.density], end)
    inputs, channels = _input_paths(layout, dimensions, channel_x, channel_y)
    outputs = _output_paths(layout, dimensions, output_x, output_y)
    paths = concatenate_paths([*inputs, *outputs])
    return InputOutputPlacement(
        picture,
        channel_x,
        channel_y,
        output_x,
        output_y,
        paths,
        channels,
        space.left,
        space.right,
        layout.input_x,
        generated,
        space.has_words,
    )


def _picture(
    space: InputOutputSpace, sizes: InputOutputDimensions, start: float, middle: float
) -> Box:
    height, width = sizes.size
    scale = space.picture / max(1, height, width)
    half, wide = max(6.0, height * scale) / 2, max(6.0, width * scale)
    left = start + (space.picture - wide) / 2
    return Box(left, left + wide, middle - half, middle + half)


def _output_y(n: int, top: float, lowest: float, middle: float) -> np.ndarray:
    """Return the centers of the outputs: in the middle, if the last one is above ``lowest`` there.

    What is written below the last one has its room below ``lowest``.
    """
    pitch = max(MIN_OUTPUT_PITCH, min(OUTPUT_PITCH, (lowest - top) / max(1, n)))
    half = (n - 1) / 2 * pitch
    return _spread(n, pitch, max(top + half, min(middle, lowest - half)))


def _inside(places: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return the centers of the outputs, moved up and if need be together, so that none is cut."""
    n = len(places)
    if not n:
        return places
    pitch = min((end - start) / n, float(places[1] - places[0]) if n > 1 else MIN_OUTPUT_PITCH)
    middle = float(places[0] + places[-1]) / 2
    half = n * pitch / 2
    return _spread(n, pitch, max(start + half, min(middle, end - half)))


def _spread(n: int, pitch: float, middle: float) -> np.ndarray:
    return middle + (np.arange(n) - (n - 1) / 2) * pitch


def _input_paths(
    layout: NetworkLayout, sizes: InputOutputDimensions, x: float, ys: np.ndarray
) -> tuple[list[Paths], np.ndarray]:
    """Return paths that fan out from each channel to the rows of the first layers."""
    n = sizes.channels
    if not n:
        return [], np.zeros(0, int)
    per_channel = int(np.clip(INPUT_STRANDS // n, 1, STRANDS_PER_CHANNEL))
    channel = np.tile(np.arange(n), per_channel)
    places = (np.arange(n * per_channel) + 0.5) / (n * per_channel)
    found = []
    units = sorted({layout.unit_of_layer[i] for i in sizes.readers})
    units = [unit for unit in units if layout.ranks[unit] == layout.input_rank]
    for unit in units:
        x1, y1 = _left_edge(layout, unit, places)
        pitch = (y1.max() - y1.min()) / len(y1) if len(y1) > 1 else INPUT_WIDTH[1]
        width = np.full(len(y1), np.clip(pitch, *INPUT_WIDTH))
        none = np.full(len(y1), NO_NODE)
        found.append(Paths(np.full(len(y1), x + 3), ys[channel], x1, y1, width, none, none + 1))
    return found, np.tile(channel, len(units))


def _left_edge(
    layout: NetworkLayout, unit: int, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return points of the left edge of a unit, at these shares of its height."""
    box = layout.boxes[unit]
    if layout.units[unit].is_block:
        return np.full(len(places), box.left), box.top + box.height * places
    column = layout.columns[layout.units[unit].first]
    node = (places * column.rows).astype(int) * column.nodes_per_row
    half = (column.bar or column.size) / 2
    return column.x[node] - half + NODE_OVERLAP, column.y[node]


def _output_paths(
    layout: NetworkLayout, sizes: InputOutputDimensions, x: float, ys: np.ndarray
) -> list[Paths]:
    """Return paths from the rows of the last layers to the outputs."""
    if not sizes.outputs:
        return []
    read = {a for a, _ in layout.connections.path_edges}
    units = sorted({layout.unit_of_layer[i] for i in sizes.output_layers})
    last = [unit for unit in units if unit not in read] or units[-1:]
    return [_paths_to(layout, unit, sizes.output_layers, x, ys) for unit in last]


def _paths_to(
    layout: NetworkLayout, unit: int, layers: Sequence[int], x: float, ys: np.ndarray
) -> Paths:
    inside = [i for i in layers if i in layout.units[unit].layers]
    column = layout.columns[inside[-1]]
    n = max(len(ys), min(column.rows, OUTPUT_STRANDS))
    row = np.arange(n) * column.rows // n
    first = row * column.nodes_per_row
    last = np.minimum(first + column.nodes_per_row, column.n)
    offset = int(layout.node_offsets[column.layer])
    output = np.arange(n) * len(ys) // n
    share = (np.arange(n) * len(ys) % n) / n - 0.5
    start_x, start_y = _right_edge(layout, unit, column, row)
    width = np.full(n, np.clip(0.62 * (column.bottom - column.top) / n, *INPUT_WIDTH))
    spread = min(SPREAD, float(ys[1] - ys[0]) / 2) if len(ys) > 1 else SPREAD
    y1 = ys[output] + share * spread
    return Paths(start_x, start_y, np.full(n, x - 4), y1, width, offset + first, offset + last)


def _right_edge(
    layout: NetworkLayout, unit: int, column: Column, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where paths from these rows of a column leave its unit."""
    y = column.y[row * column.nodes_per_row]
    if layout.units[unit].is_block:
        return np.full(len(row), layout.boxes[unit].right), y
    rightmost = np.minimum((row + 1) * column.nodes_per_row, column.n) - 1
    half = (column.bar or column.size) / 2
    return column.x[rightmost] + half - NODE_OVERLAP, y
