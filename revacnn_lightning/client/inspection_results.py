"""What a run sends on request of layers, filters and images, as short JSON without pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from revacnn_lightning.client.tool_results import number, numbers
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.inspections import (
    ClassScore,
    FilterInspection,
    FilterView,
    Histogram,
    ImagePass,
    ImagePrediction,
    LayerDetail,
    VolumeSlice,
)

__all__ = ["filter_inspection", "image_pass", "layer_detail"]

MAX_SUMMARIZED = 16  # filters of a layer
MAX_KERNEL = 49  # values of a kernel that are listed
MAP_CELLS = 8  # along each side
BINS = 16  # of a histogram
MAX_CLASSES = 10


def layer_detail(found: LayerDetail, filters: Sequence[int]) -> dict[str, Any]:
    """Return the filters of a layer in numbers: some with their maps, or the most active ones.

    Raises:
        EditRefusedError: the layer has no such filter.
    """
    maps, width = found.activations.images, len(found.coefficients.features)
    if any(index >= width for index in filters):
        raise EditRefusedError(f"{found.layer} has {width} filters; check the indices")
    chosen = list(filters) or _most_active(maps, width)
    return {
        "step": found.step,
        "version": found.version,
        "layer": found.layer,
        "image_index": found.image_index,
        "image_size": list(found.image.shape),
        "shapes": {name: list(view.images.shape[1:]) for name, view in _views(found).items()},
        "filters": [_filter(found, index, is_whole=bool(filters)) for index in chosen],
        "filters_left_out": width - len(chosen),
        "coefficient_histogram": _histogram(found.weight_histogram),
        "gradient_histogram": _histogram(found.gradient_histogram),
        "prediction": _prediction(found.prediction),
        "before_edit": _prediction(found.before_edit),
        "after_edit": _prediction(found.after_edit),
    }


def _most_active(maps: np.ndarray, width: int) -> list[int]:
    """Return the filters with the largest mean in their maps, the largest first."""
    if maps.ndim < 2 or not maps.size:
        return list(range(min(width, MAX_SUMMARIZED)))
    means = np.nan_to_num(maps.reshape(len(maps), -1).astype(np.float64).mean(1))
    order: list[int] = np.argsort(-means, kind="stable")[:MAX_SUMMARIZED].tolist()
    return order


def _views(found: LayerDetail) -> dict[str, FilterView]:
    """Return the views of the filters that were sent."""
    views = {
        "coefficients": found.coefficients,
        "gradients": found.gradients,
        "activation_map": found.activations,
        "activation_gradients": found.activation_gradients,
    }
    return {name: view for name, view in views.items() if view.images.ndim > 1}


def _filter(found: LayerDetail, index: int, *, is_whole: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"filter": index}
    for name, view in _views(found).items():
        values = view.images[index].astype(np.float64)
        facts[name] = _summary(values)
        if is_whole and name == "coefficients" and values.size <= MAX_KERNEL:
            facts[name]["values"] = numbers(values)
        if is_whole and name == "activation_map" and values.ndim == 2:
            facts[name]["cells"] = numbers(_pooled(values))
    return facts


def _summary(values: np.ndarray) -> dict[str, Any]:
    """Return the range of an image and the place of its largest value: row, column."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {}
    largest = np.unravel_index(
        np.nanargmax(np.where(np.isfinite(values), values, np.nan)), values.shape
    )
    return {
        "min": number(finite.min()),
        "max": number(finite.max()),
        "mean": number(finite.mean()),
        "max_at": [int(place) for place in largest[:2]],
    }


def _pooled(image: np.ndarray) -> np.ndarray:
    """Return the means of an image over at most `MAP_CELLS` × `MAP_CELLS` cells."""
    rows, columns = (
        np.array_split(np.arange(length), min(length, MAP_CELLS)) for length in image.shape
    )
    return np.array([[image[np.ix_(row, column)].mean() for column in columns] for row in rows])


def _histogram(found: Histogram | None) -> dict[str, Any] | None:
    """Return a histogram in fewer bins."""
    if found is None:
        return None
    bins = np.array_split(np.asarray(found.counts), BINS)
    counts = [int(part.sum()) for part in bins]
    return {"limit": number(found.limit), "counts": counts, "nonfinite": found.nonfinite}


def image_pass(found: ImagePass) -> dict[str, Any]:
    """Return what the network makes of an image."""
    known = {
        "step": found.step,
        "version": found.version,
        "image_index": found.image_index,
        "input_shape": found.input_shape,
        "class_count": found.class_count,
        "loss": number(found.loss),
        "prediction": _prediction(found.prediction),
        "output_shapes": found.output_shapes,
    }
    notes = (found.input_note, found.image_note, found.class_names_note)
    return {**known, "notes": [note for note in notes if note]}


def _prediction(found: ImagePrediction | None) -> dict[str, Any] | None:
    if found is None:
        return None
    classes = sorted(found.classes, key=lambda one: -one.probability)[:MAX_CLASSES]
    truth = None if found.truth is None else _score(found.truth)
    note = {"note": found.note} if found.note else {}
    return {"step": found.step, "classes": [_score(one) for one in classes], "truth": truth} | note


def _score(one: ClassScore) -> dict[str, Any]:
    return {"class": one.index, "name": one.name, "probability": number(one.probability)}


def filter_inspection(found: FilterInspection) -> dict[str, Any]:
    """Return what activates a filter, without the pixels.

    A signal is an image with a height of 1. Of volumes, the slices of each box are added.
    """
    of_volumes = {} if found.volume is None else _of_volumes(found, found.volume)
    return {
        "step": found.step,
        "version": found.version,
        "layer": found.layer,
        "filter": found.filter,
        "receptive_field": list(found.receptive_field),
        "response": number(found.response),
        "response_box": list(found.box),
        "image_size": list(found.image_size),
        "top_images": [
            {"step": one.step, "response": number(one.response), "box": list(one.box)}
            | _slices(one.volume)
            for one in found.top_images
        ],
        "notes": [note for note in (found.top_images_note, found.attribution_refusal) if note],
        **of_volumes,
    }


def _of_volumes(found: FilterInspection, volume: VolumeSlice) -> dict[str, Any]:
    return {
        "receptive_field_depth": found.receptive_field_depth,
        "image_depth": volume.count,
        **_slices(volume),
    }


def _slices(volume: VolumeSlice | None) -> dict[str, Any]:
    """Return the first slice of a box, and the one behind its last."""
    return {} if volume is None else {"slices": [volume.front, volume.back]}
