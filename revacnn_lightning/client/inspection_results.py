"""What a run sends on request of layers, filters and images, as short JSON without pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from revacnn_lightning.client.tool_results import round_array_for_json, round_for_json
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.inspections import (
    ClassScore,
    FilterFeaturesAndImages,
    FilterInspection,
    Histogram,
    ImagePass,
    ImagePrediction,
    LayerDetail,
    VolumeSlice,
)

__all__ = ["summarize_filter_inspection", "summarize_image_pass", "summarize_layer_detail"]

MAX_SUMMARIZED = 16  # filters of a layer
MAX_KERNEL = 49  # values of a kernel that are listed
MAP_CELLS = 8  # along each side
BINS = 16  # of a histogram
MAX_CLASSES = 10


def summarize_layer_detail(detail: LayerDetail, filters: Sequence[int]) -> dict[str, Any]:
    """Return the given filters of a layer with their maps, or a summary of the most active ones.

    Raises:
        EditRefusedError: the layer has no such filter.
    """
    maps, width = detail.activations.images, len(detail.coefficients.features)
    if any(index >= width for index in filters):
        raise EditRefusedError(f"{detail.layer} has {width} filters; check the indices")
    chosen = list(filters) or _most_active(maps, width)
    return {
        "step": detail.step,
        "version": detail.version,
        "layer": detail.layer,
        "image_index": detail.image_index,
        "image_size": list(detail.image.shape),
        "shapes": {name: list(view.images.shape[1:]) for name, view in _views(detail).items()},
        "filters": [_filter(detail, index, is_whole=bool(filters)) for index in chosen],
        "filters_left_out": width - len(chosen),
        "coefficient_histogram": _histogram(detail.weight_histogram),
        "gradient_histogram": _histogram(detail.gradient_histogram),
        "prediction": _prediction(detail.prediction),
        "before_edit": _prediction(detail.before_edit),
        "after_edit": _prediction(detail.after_edit),
    }


def _most_active(maps: np.ndarray, width: int) -> list[int]:
    """Return the filters with the largest mean in their maps, the largest first."""
    if maps.ndim < 2 or not maps.size:
        return list(range(min(width, MAX_SUMMARIZED)))
    means = np.nan_to_num(maps.reshape(len(maps), -1).astype(np.float64).mean(1))
    order: list[int] = np.argsort(-means, kind="stable")[:MAX_SUMMARIZED].tolist()
    return order


def _views(found: LayerDetail) -> dict[str, FilterFeaturesAndImages]:
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
            facts[name]["values"] = round_array_for_json(values)
        if is_whole and name == "activation_map" and values.ndim == 2:
            facts[name]["cells"] = round_array_for_json(_pooled(values))
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
        "min": round_for_json(finite.min()),
        "max": round_for_json(finite.max()),
        "mean": round_for_json(finite.mean()),
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
    return {"limit": round_for_json(found.limit), "counts": counts, "nonfinite": found.nonfinite}


def summarize_image_pass(image_pass: ImagePass) -> dict[str, Any]:
    """Return what the network predicts for an image, without the image."""
    known = {
        "step": image_pass.step,
        "version": image_pass.version,
        "image_index": image_pass.image_index,
        "input_shape": image_pass.input_shape,
        "class_count": image_pass.class_count,
        "loss": round_for_json(image_pass.loss),
        "prediction": _prediction(image_pass.prediction),
        "output_shapes": image_pass.output_shapes,
    }
    notes = (image_pass.input_note, image_pass.image_note, image_pass.class_names_note)
    return {**known, "notes": [note for note in notes if note]}


def _prediction(found: ImagePrediction | None) -> dict[str, Any] | None:
    if found is None:
        return None
    classes = sorted(found.classes, key=lambda one: -one.probability)[:MAX_CLASSES]
    truth = None if found.truth is None else _score(found.truth)
    note = {"note": found.note} if found.note else {}
    return {"step": found.step, "classes": [_score(one) for one in classes], "truth": truth} | note


def _score(one: ClassScore) -> dict[str, Any]:
    return {"class": one.index, "name": one.name, "probability": round_for_json(one.probability)}


def summarize_filter_inspection(inspection: FilterInspection) -> dict[str, Any]:
    """Return what activates a filter, without the pixels.

    A signal is an image with a height of 1. Of volumes, the slices of each box are added.
    """
    of_volumes = {} if inspection.volume is None else _of_volumes(inspection, inspection.volume)
    return {
        "step": inspection.step,
        "version": inspection.version,
        "layer": inspection.layer,
        "filter": inspection.filter,
        "receptive_field": list(inspection.receptive_field),
        "response": round_for_json(inspection.response),
        "response_box": list(inspection.box),
        "image_size": list(inspection.image_size),
        "top_images": [
            {"step": one.step, "response": round_for_json(one.response), "box": list(one.box)}
            | _slices(one.volume)
            for one in inspection.top_images
        ],
        "notes": [
            note for note in (inspection.top_images_note, inspection.attribution_refusal) if note
        ],
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
