"""What a run sends on request of classes, as short JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from revacnn_lightning.client.tool_results import number, numbers
from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.messages import Structure

__all__ = ["class_answers", "class_lens", "confusion"]

MAX_CLASSES = 5  # of a filter
MAX_NAMED = 128


def class_lens(found: ClassLens, count: int) -> dict[str, Any]:
    """Return the most selective filters of a layer, each with the classes it answers to most."""
    effects, pulls = found.effects(), found.pulls()
    selectivity, conflict = found.selectivity(), found.conflict()
    order = np.argsort(-selectivity, kind="stable")[:count].tolist()
    return {
        "step": found.step,
        "version": found.version,
        "layer": found.layer,
        "batches": found.batches,
        "classes": _named(found.classes, found.names),
        "images": numbers(found.counts),
        "filters": [
            {
                "filter": index,
                "selectivity": number(selectivity[index]),
                "conflict": number(conflict[index]),
                "classes": _strongest(found, effects[index], pulls[index]),
            }
            for index in order
        ],
        "filters_left_out": len(selectivity) - len(order),
    }


def _strongest(found: ClassLens, effects: np.ndarray, pulls: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(-np.nan_to_num(effects), kind="stable")[:MAX_CLASSES].tolist()
    return [
        {
            "class": found.classes[column],
            "effect": number(effects[column]),
            "pull": number(pulls[column]),
        }
        for column in order
    ]


def _named(classes: list[int], names: list[str]) -> dict[str, str]:
    return {str(index): name for index, name in zip(classes, names, strict=False)}


def class_answers(found: ClassAnswers, structure: Structure | None, count: int) -> dict[str, Any]:
    """Return the filters that answer most to a class, and those that answer least."""
    places = [
        (layer.name, index)
        for layer in ([] if structure is None else structure.layers)
        for index in range(len(layer.filter_ids))
    ]
    is_of_structure = structure is not None and structure.version == found.version
    is_known = is_of_structure and len(places) == len(found.effects)
    values = found.effects if is_known else np.zeros(0, np.float32)
    order = [index for index in np.argsort(values).tolist() if np.isfinite(values[index])]
    name = found.names[found.class_index] if found.class_index < len(found.names) else ""

    def listed(indices: list[int]) -> list[dict[str, Any]]:
        return [
            {"layer": places[i][0], "filter": places[i][1], "effect": number(values[i])}
            for i in indices
        ]

    return {
        "step": found.step,
        "version": found.version,
        "class": found.class_index,
        "name": name,
        "images": number(found.images),
        "most": listed(order[::-1][:count]),
        "least": listed(order[:count]),
    }


def confusion(found: Confusion, count: int) -> dict[str, Any]:
    """Return the accuracy, that of each class, and the most frequent confusions."""
    counts = np.asarray(found.counts, np.float64)
    totals = counts.sum(1)
    wrong = counts * (1 - np.eye(len(counts)))
    pairs = np.argsort(-wrong, axis=None, kind="stable")[:count]
    confused = [divmod(int(pair), len(counts)) for pair in pairs if wrong.flat[pair] > 0]
    return {
        "step": found.step,
        "version": found.version,
        "accuracy": number(found.accuracy()),
        "classes": [
            {
                "class": index,
                "name": found.names[index] if index < len(found.names) else "",
                "images": number(totals[index]),
                "accuracy": number(counts[index, index] / totals[index]) if totals[index] else None,
            }
            for index in range(min(len(counts), MAX_NAMED))
        ],
        "confusions": [
            {"true": true, "taken_for": taken, "images": number(wrong[true, taken])}
            for true, taken in confused
        ],
    }
