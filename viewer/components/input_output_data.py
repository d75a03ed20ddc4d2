"""What the page shows of the input and the outputs of the network, from one image pass."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from revacnn_lightning.protocol.inspection_requests import MAX_PICTURE_SIDE
from revacnn_lightning.protocol.inspections import ClassScore, ImagePass, ImagePrediction
from revacnn_lightning.protocol.messages import Structure

from ..layout import InputOutputDimensions, NetworkLayout
from ..layout.input_output import guess_input_readers
from ..layout.topology import forward_edges
from ..rendering.formatting import format_count, format_number
from ..rendering.image_names import short_image_name
from ..rendering.thumbnails import image_tile

__all__ = [
    "MANY_OUTPUTS",
    "channel_tooltips",
    "class_name_width",
    "class_probability_rows",
    "describe_input",
    "describe_output",
    "input_and_generated_images",
    "input_output_dimensions",
    "input_readers_if_all_fed",
    "input_signal",
    "relative_channel_magnitudes",
]

MAX_CHANNEL_NODES = 16  # of an input with more channels, each node stands for several
MANY_OUTPUTS = 6  # rows of a network with so many classes that not all are listed
PICTURE_SIDE = 96  # pixels
NAME_CHARACTER = 6.0  # px: width of a character of the name of a class
USUAL_NAME = 12  # characters, of classes whose names are not known together
ROW_SHAPE = (1, 2)  # height to width of the picture of a signal
MAX_TILES = 16  # in a row and in a column
PICTURE_SCALE = 1.5  # pixels of a picture to those of the image that is made of it
COLOR_NAMES = ("red", "green", "blue")
Data = dict[str, Any]


def input_output_dimensions(
    structure: Structure, layout: NetworkLayout, image_pass: ImagePass | None
) -> InputOutputDimensions:
    """Return the sizes and counts that the positions of input and outputs depend on."""
    if image_pass is None:
        return InputOutputDimensions()
    index = {layer.name: i for i, layer in enumerate(structure.layers)}
    readers = [index[name] for name in image_pass.readers if name in index]
    channels = image_pass.input_shape[0] if len(image_pass.input_shape) > 1 else 1
    if image_pass.input_shape and not image_pass.readers:
        readers = guess_input_readers(structure, layout, channels)
    is_drawn = any(layout.ranks[layout.unit_of_layer[i]] == layout.input_rank for i in readers)
    rows = class_probability_rows(image_pass)
    has_output = image_pass.prediction is not None and bool(image_pass.output_shapes)
    return InputOutputDimensions(
        size=_picture_size(image_pass.image),
        channels=min(MAX_CHANNEL_NODES, channels) if image_pass.input_shape and is_drawn else 0,
        outputs=len(rows) or int(has_output),
        has_more=0 < len(rows) < image_pass.class_count,
        readers=tuple(readers),
        output_layers=tuple(index[name] for name in image_pass.output_layers if name in index),
        has_generated=layout.input_rank > 0 and image_pass.generated is not None,
    )


def input_readers_if_all_fed(structure: Structure, image_pass: ImagePass | None) -> tuple[int, ...]:
    """Return the layers that read the input, if each of them also reads another layer; else ()."""
    if image_pass is None:
        return ()
    fed = {b for _, b in forward_edges(structure)}
    index = {layer.name: i for i, layer in enumerate(structure.layers)}
    readers = [index[name] for name in image_pass.readers if name in index]
    return tuple(readers) if all(i in fed for i in readers) else ()


def _picture_size(image: np.ndarray) -> tuple[int, int]:
    if image.ndim == 3 and image.size:
        return image.shape[1], image.shape[2]
    return ROW_SHAPE if image.size else (0, 0)


# ---------------------------------------------------------------------- input


def _grouped(sums: list[float], n: int) -> list[np.ndarray]:
    """Return the sums of the channels of each of ``n`` nodes."""
    values = np.asarray(sums, np.float64)
    cuts = np.arange(n + 1) * len(values) // max(1, n)
    return [values[a:b] for a, b in pairwise(cuts)]


def relative_channel_magnitudes(image_pass: ImagePass | None, n_nodes: int) -> np.ndarray:
    """Return the Σ |pixel| of each node of input channels, relative to the largest, 0 to 1."""
    if image_pass is None or not image_pass.channel_sums or not n_nodes:
        return np.ones(n_nodes, np.float32)
    means = np.array([group.mean() for group in _grouped(image_pass.channel_sums, n_nodes)])
    means = np.nan_to_num(means, nan=0.0, posinf=0.0)
    largest = means.max()
    return (means / largest if largest > 0 else means).astype(np.float32)


def channel_tooltips(image_pass: ImagePass, n_nodes: int) -> list[Data]:
    """Return the name, the text and the weight for the tooltip of each node of input channels."""
    count = image_pass.input_shape[0] if len(image_pass.input_shape) > 1 else 1
    names = COLOR_NAMES if count == 3 and len(image_pass.input_shape) == 3 else ()
    cuts = np.arange(n_nodes + 1) * count // max(1, n_nodes)
    groups = (
        _grouped(image_pass.channel_sums, n_nodes)
        if image_pass.channel_sums
        else [np.zeros(0)] * n_nodes
    )
    rows = []
    weights = relative_channel_magnitudes(image_pass, n_nodes).tolist()
    for first, end, group, weight in zip(cuts[:-1], cuts[1:], groups, weights, strict=True):
        is_one = end - first == 1
        name = f"channel {first}" if is_one else f"channels {first}–{end - 1}"
        named = f"{name} ({names[first]})" if names else name
        total = format_number(float(group.mean())) if len(group) else ""
        label = "Σ |pixel|" if is_one else "mean Σ |pixel|"
        rows.append({"name": named, "text": f"{label} {total}" if total else "", "weight": weight})
    return rows


def describe_input(image_pass: ImagePass | None, refusal: str, *, is_waiting: bool) -> Data:
    """Return the texts beside the picture of the input, and how it can be painted or replaced."""
    if image_pass is None:
        return {"title": "Input", "subtitle": "", "note": refusal, "choosable": False}
    name = short_image_name(image_pass.image_index)
    size = "×".join(map(str, image_pass.input_shape))
    slice_note = "middle slice" if len(image_pass.input_shape) > 3 else ""
    return {
        "title": "Input",
        "subtitle": size,
        "source": "loading…" if is_waiting else name if size else "",
        "note": image_pass.input_note or refusal,
        "choosable": bool(image_pass.input_shape),
        "slice": slice_note,
        "image_note": image_pass.image_note,
        "grid": paintable_tile_grid(image_pass.input_shape),
        "picture_side": uploaded_picture_side(image_pass.input_shape),
    }


def paintable_tile_grid(input_shape: list[int]) -> list[int]:
    """Return the number of rows and columns of tiles that a person can paint in an image."""
    return [min(MAX_TILES, size) for size in input_shape[1:]] if len(input_shape) == 3 else [0, 0]


def uploaded_picture_side(input_shape: list[int]) -> int:
    """Return the side in pixels to which the page scales a picture of the user's own."""
    if len(input_shape) != 3:
        return 0
    return min(MAX_PICTURE_SIDE, round(PICTURE_SCALE * max(input_shape[1:])))


def input_and_generated_images(image_pass: ImagePass) -> np.ndarray:
    """Return the input image as a tile, uint8 (n, h, w, 3), then the generated image, if any.

    The shape is (0, ...) if the input is no image.
    """
    tile, generated = image_tile(image_pass.image), image_pass.generated
    if generated is not None and generated.shape == image_pass.image.shape:
        tile = np.concatenate([tile, image_tile(generated)])
    step = -(-max(tile.shape[1:3]) // PICTURE_SIDE)
    return tile[:, ::step, ::step] if step > 1 else tile


def input_signal(image_pass: ImagePass) -> np.ndarray:
    """Return the channels of an input signal, float32 (channels, n); (0, 0) for other inputs."""
    values = image_pass.image
    if values.ndim not in (1, 2) or not values.size:
        return np.zeros((0, 0), np.float32)
    rows = np.atleast_2d(values)[:MAX_CHANNEL_NODES]
    return np.nan_to_num(rows.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)


# ---------------------------------------------------------------------- outputs


def _listed(prediction: ImagePrediction, class_count: int) -> list[ClassScore]:
    """Return the listed classes; of many, the true one takes the last place unless it is there."""
    listed = list(prediction.classes)
    truth = prediction.truth
    if len(listed) < class_count and len(listed) > MANY_OUTPUTS - 1:
        listed = listed[:MANY_OUTPUTS]
        if truth is not None and truth.index not in [score.index for score in listed]:
            listed[-1] = truth
    return listed


def class_probability_rows(image_pass: ImagePass) -> list[Data]:
    """Return a row for each listed class: its name, its probability, whether it is predicted.

    There are no rows if the network does not return class scores.
    """
    prediction = image_pass.prediction
    if prediction is None or not prediction.classes:
        return []
    truth = None if prediction.truth is None else prediction.truth.index
    best: int | None = max(prediction.classes, key=lambda score: score.probability).index
    if image_pass.class_map_shape:
        best = None  # each position has a prediction of its own
    return [
        {
            "name": score.name or str(score.index),
            "index": score.index,
            "probability": score.probability,
            "predicted": score.index == best,
            "true": None if truth is None else score.index == truth,
        }
        for score in _listed(prediction, image_pass.class_count)
    ]


def class_name_width(image_pass: ImagePass | None) -> float:
    """Return the width that the names of the classes need, px.

    It does not depend on which of many classes are listed at the moment.
    """
    if image_pass is None or image_pass.prediction is None:
        return 0.0
    names = [len(score.name) for score in image_pass.prediction.classes]
    if any(names) and len(names) < image_pass.class_count:
        return USUAL_NAME * NAME_CHARACTER
    return max(names, default=0) * NAME_CHARACTER


def describe_output(image_pass: ImagePass | None, batch_loss: float | None) -> Data:
    """Return the texts beside the outputs: shapes, notes and the losses."""
    if image_pass is None or image_pass.prediction is None:
        return {"title": "", "subtitle": "", "note": "", "more": "", "loss": []}
    rows, count = class_probability_rows(image_pass), image_pass.class_count
    hidden = count - len(rows) if rows else 0
    shapes = ["×".join(map(str, shape)) or "1" for shape in image_pass.output_shapes]
    loss = []
    if image_pass.loss is not None:
        loss.append(_loss("image", image_pass.loss, "Cross-entropy of this input: −ln p(truth)"))
    if batch_loss is not None:
        loss.append(_loss("batch", batch_loss, "The loss of the whole training batch"))
    subtitle = f"{format_count(count)} classes" if rows else ""
    if rows and image_pass.class_map_shape:
        subtitle += f", {'×'.join(map(str, image_pass.class_map_shape))}"
    return {
        "title": "Output",
        "subtitle": subtitle,
        "of_maps": bool(image_pass.class_map_shape),
        "shapes": [] if rows else shapes,
        "note": image_pass.class_names_note or (image_pass.prediction.note if not shapes else ""),
        "details": image_pass.prediction.note,
        "more": f"+{format_count(hidden)} more" if hidden > 0 else "",
        "loss": loss,
    }


def _loss(label: str, value: float, title: str) -> Data:
    return {"label": label, "value": format_number(value), "title": title}
