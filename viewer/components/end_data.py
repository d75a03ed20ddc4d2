"""The data of the network's ends: an input on its way through the network, and what comes out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from revacnn_lightning.protocol.inspection_requests import MAX_PICTURE_SIDE
from revacnn_lightning.protocol.inspections import ClassScore, ImagePass, ImagePrediction
from revacnn_lightning.protocol.messages import Structure

from ..layout import EndShape, NetworkLayout
from ..layout.ends import rank_zero_readers
from ..layout.topology import forward_edges
from ..rendering.formatting import format_count, format_number
from ..rendering.image_names import short_image_name
from ..rendering.thumbnails import image_tile

__all__ = [
    "MANY_OUTPUTS",
    "channel_rows",
    "channel_weights",
    "end_shape",
    "inner_readers",
    "input_facts",
    "name_width",
    "output_facts",
    "output_rows",
    "picture",
    "signal",
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


def end_shape(structure: Structure, layout: NetworkLayout, passed: ImagePass | None) -> EndShape:
    """Return what the ends show, as far as places depend on it."""
    if passed is None:
        return EndShape()
    index = {layer.name: i for i, layer in enumerate(structure.layers)}
    readers = [index[name] for name in passed.readers if name in index]
    channels = passed.input_shape[0] if len(passed.input_shape) > 1 else 1
    if passed.input_shape and not passed.readers:
        readers = rank_zero_readers(structure, layout, channels)
    is_drawn = any(layout.ranks[layout.unit_of_layer[i]] == layout.input_rank for i in readers)
    rows = output_rows(passed)
    has_output = passed.prediction is not None and bool(passed.output_shapes)
    return EndShape(
        size=_picture_size(passed.image),
        channels=min(MAX_CHANNEL_NODES, channels) if passed.input_shape and is_drawn else 0,
        outputs=len(rows) or int(has_output),
        has_more=0 < len(rows) < passed.class_count,
        readers=tuple(readers),
        output_layers=tuple(index[name] for name in passed.output_layers if name in index),
        has_generated=layout.input_rank > 0 and passed.generated is not None,
    )


def inner_readers(structure: Structure, passed: ImagePass | None) -> tuple[int, ...]:
    """Return the layers that read the input, if all of them read other layers, too; else ()."""
    if passed is None:
        return ()
    fed = {b for _, b in forward_edges(structure)}
    index = {layer.name: i for i, layer in enumerate(structure.layers)}
    readers = [index[name] for name in passed.readers if name in index]
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


def channel_weights(passed: ImagePass | None, n: int) -> np.ndarray:
    """Return the weight of each channel node, 0 to 1: its Σ |pixel| relative to the largest one."""
    if passed is None or not passed.channel_sums or not n:
        return np.ones(n, np.float32)
    means = np.array([group.mean() for group in _grouped(passed.channel_sums, n)])
    means = np.nan_to_num(means, nan=0.0, posinf=0.0)
    largest = means.max()
    return (means / largest if largest > 0 else means).astype(np.float32)


def channel_rows(passed: ImagePass, n: int) -> list[Data]:
    """Return what the tooltip of each channel node says."""
    count = passed.input_shape[0] if len(passed.input_shape) > 1 else 1
    names = COLOR_NAMES if count == 3 and len(passed.input_shape) == 3 else ()
    cuts = np.arange(n + 1) * count // max(1, n)
    groups = _grouped(passed.channel_sums, n) if passed.channel_sums else [np.zeros(0)] * n
    rows = []
    weights = channel_weights(passed, n).tolist()
    for first, end, group, weight in zip(cuts[:-1], cuts[1:], groups, weights, strict=True):
        is_one = end - first == 1
        name = f"channel {first}" if is_one else f"channels {first}–{end - 1}"
        named = f"{name} ({names[first]})" if names else name
        total = format_number(float(group.mean())) if len(group) else ""
        label = "Σ |pixel|" if is_one else "mean Σ |pixel|"
        rows.append({"name": named, "text": f"{label} {total}" if total else "", "weight": weight})
    return rows


def input_facts(passed: ImagePass | None, refused: str, *, is_waiting: bool) -> Data:
    """Return what is written beside the picture."""
    if passed is None:
        return {"title": "Input", "subtitle": "", "note": refused, "choosable": False}
    name = short_image_name(passed.image_index)
    size = "×".join(map(str, passed.input_shape))
    slice_note = "middle slice" if len(passed.input_shape) > 3 else ""
    return {
        "title": "Input",
        "subtitle": size,
        "source": "loading…" if is_waiting else name if size else "",
        "note": passed.input_note or refused,
        "choosable": bool(passed.input_shape),
        "slice": slice_note,
        "image_note": passed.image_note,
        "grid": paint_grid(passed.input_shape),
        "picture_side": picture_side(passed.input_shape),
    }


def paint_grid(shape: list[int]) -> list[int]:
    """Return into how many rows and columns of tiles an image is divided for painting."""
    return [min(MAX_TILES, size) for size in shape[1:]] if len(shape) == 3 else [0, 0]


def picture_side(shape: list[int]) -> int:
    """Return how many pixels a picture for these images should have: more than they have."""
    return min(MAX_PICTURE_SIDE, round(PICTURE_SCALE * max(shape[1:]))) if len(shape) == 3 else 0


def picture(passed: ImagePass) -> np.ndarray:
    """Return an image as a tile, uint8 (n, h, w, 3), and behind it the generated one, if any.

    It is of shape (0, ...) if there is no image.
    """
    tile, generated = image_tile(passed.image), passed.generated
    if generated is not None and generated.shape == passed.image.shape:
        tile = np.concatenate([tile, image_tile(generated)])
    step = -(-max(tile.shape[1:3]) // PICTURE_SIDE)
    return tile[:, ::step, ::step] if step > 1 else tile


def signal(passed: ImagePass) -> np.ndarray:
    """Return a signal's channels, float32 (channels, n) between -1 and 1; (0, 0) if it is none."""
    values = passed.image
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


def output_rows(passed: ImagePass) -> list[Data]:
    """Return one row per listed class; none if the network does not return class scores."""
    prediction = passed.prediction
    if prediction is None or not prediction.classes:
        return []
    truth = None if prediction.truth is None else prediction.truth.index
    best: int | None = max(prediction.classes, key=lambda score: score.probability).index
    if passed.class_map_shape:
        best = None  # each position has a prediction of its own
    return [
        {
            "name": score.name or str(score.index),
            "index": score.index,
            "probability": score.probability,
            "predicted": score.index == best,
            "true": None if truth is None else score.index == truth,
        }
        for score in _listed(prediction, passed.class_count)
    ]


def name_width(passed: ImagePass | None) -> float:
    """Return the room that the names of the classes need, px.

    It does not depend on which of many classes are listed at the moment.
    """
    if passed is None or passed.prediction is None:
        return 0.0
    names = [len(score.name) for score in passed.prediction.classes]
    if any(names) and len(names) < passed.class_count:
        return USUAL_NAME * NAME_CHARACTER
    return max(names, default=0) * NAME_CHARACTER


def output_facts(passed: ImagePass | None, batch_loss: float | None) -> Data:
    """Return what is written beside the outputs."""
    if passed is None or passed.prediction is None:
        return {"title": "", "subtitle": "", "note": "", "more": "", "loss": []}
    rows, count = output_rows(passed), passed.class_count
    hidden = count - len(rows) if rows else 0
    shapes = ["×".join(map(str, shape)) or "1" for shape in passed.output_shapes]
    loss = []
    if passed.loss is not None:
        loss.append(_loss("image", passed.loss, "Cross-entropy of this input: −ln p(truth)"))
    if batch_loss is not None:
        loss.append(_loss("batch", batch_loss, "The loss of the whole training batch"))
    subtitle = f"{format_count(count)} classes" if rows else ""
    if rows and passed.class_map_shape:
        subtitle += f", {'×'.join(map(str, passed.class_map_shape))}"
    return {
        "title": "Output",
        "subtitle": subtitle,
        "of_maps": bool(passed.class_map_shape),
        "shapes": [] if rows else shapes,
        "note": passed.class_names_note or (passed.prediction.note if not shapes else ""),
        "details": passed.prediction.note,
        "more": f"+{format_count(hidden)} more" if hidden > 0 else "",
        "loss": loss,
    }


def _loss(label: str, value: float, title: str) -> Data:
    return {"label": label, "value": format_number(value), "title": title}
