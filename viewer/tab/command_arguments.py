"""The arguments that come with a command of the page."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from revacnn_lightning.protocol.inspection_requests import MAX_PATCHES, MAX_PICTURE_SIDE, Patch

__all__ = ["CommandArguments"]

MAX_ADDED = 4096  # filters in one request
MAX_BATCHES = 1_000_000  # in one request
MAX_SELECTED = 65536  # filters in one selection


class CommandArguments(Struct, frozen=True):
    """Arguments of a command; each command uses some of them. Unknown arguments are dropped.

    Attributes:
        layer: index of a layer; None for the selected layer.
        first, last: indices of the first and the last filter of a range.
        dx, dy: steps between layers and between filters.
        row: row of the recorded history.
        chart: 0 for the metric chart, 1 and 2 for the layer charts.
        count: number of filters to add.
        batches: number of batches to train.
        option: the chosen option of a setting.
        action: what the run should do.
        name: name of a hyperparameter or a chart, or path of a block of layers.
        optimizer, group: indices of an optimizer and its parameter group.
        value: value of the hyperparameter or the clipping, or the smoothing of a chart.
        run: id of a run.
        key: key of a staged change; "" for all.
        ids: ids of filters.
        filters: indices of filters in a layer.
        weights: weights of filters.
        pixels: the red, green and blue of each pixel of a picture, row by row; base64 in JSON.
        height, width: the size of the picture.
        patches: the patches to paint over an image.
    """

    layer: int | None = None
    first: int = -1
    last: int = -1
    dx: int = 0
    dy: int = 0
    row: int = -1
    chart: int = -1
    count: Annotated[int, Meta(ge=1, le=MAX_ADDED)] = 1
    batches: Annotated[int, Meta(ge=1, le=MAX_BATCHES)] = 1
    option: str = ""
    action: str = ""
    name: str = ""
    optimizer: int = 0
    group: int = 0
    value: float = 0.0
    run: str = ""
    key: str = ""
    ids: Annotated[list[int], Meta(max_length=MAX_SELECTED)] = []
    filters: Annotated[list[int], Meta(max_length=MAX_SELECTED)] = []
    weights: Annotated[list[float], Meta(max_length=MAX_SELECTED)] = []
    pixels: Annotated[bytes, Meta(max_length=3 * MAX_PICTURE_SIDE**2)] = b""
    height: int = 0
    width: int = 0
    patches: Annotated[list[Patch], Meta(max_length=MAX_PATCHES)] = []
