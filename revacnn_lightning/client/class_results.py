"""What a run sends on request of classes, as short JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from revacnn_lightning.client.tool_results import round_array_for_json, round_for_json
from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.messages import Structure

__all__ = ["summarize_class_lens", "summarize_confusion", "summarize_filter_responses_to_class"]

MAX_CLASSES = 5  # of a filter
MAX_NAMED = 128


def summarize_class_lens(lens: ClassLens, count: int) -> dict[str, Any]:
    """Return the ``count`` most selective filters, each with the classes it answers to most."""
    effects, pulls = lens.effects(), lens.pulls()
    selectivity, conflict = lens.selectivity(), lens.conflict()
    order = np.argsort(-selectivity, kind="stable")[:count].tolist()
    return {
        "step": lens.step,
        "version": lens.version,
        "layer": lens.layer,
        "batches": lens.batches,
        "classes": _named(lens.classes, lens.names),
        "images": round_array_for_json(lens.counts),
        "filters": [
            {
                "filter": index,
                "selectivity": round_for_json(selectivity[index]),
                "conflict": round_for_json(conflict[index]),
                "classes": _strongest(lens, effects[index], pulls[index]),
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
            "effect": round_for_json(effects[column]),
            "pull": round_for_json(pulls[column]),
        }
        for column in order
    ]


def _named(classes: list[int], names: list[str]) -> dict[str, str]:
    return {str(index): name for index, name in zip(classes, names, strict=False)}


def summarize_filter_responses_to_class(
    answers: ClassAnswers, structure: Structure | None, count: int
) -> dict[str, Any]:
    """Return the ``count`` filters that answer most to a class, and those that answer least."""
    places = [
        (layer.name, index)
        for layer in ([] if structure is None else structure.layers)
        for index in range(len(layer.filter_ids))
    ]
    is_of_structure = structure is not None and structure.version == answers.version
    is_known = is_of_structure and len(places) == len(answers.effects)
    values = answers.effects if is_known else np.zeros(0, np.float32)
    order = [index for index in np.argsort(values).tolist() if np.isfinite(values[index])]
    name = answers.names[answers.class_index] if answers.class_index < len(answers.names) else ""

    def listed(indices: list[int]) -> list[dict[str, Any]]:
        return [
            {"layer": places[i][0], "filter": places[i][1], "effect": round_for_json(values[i])}
            for i in indices
        ]

    return {
        "step": answers.step,
        "version": answers.version,
        "class": answers.class_index,
        "name": name,
        "images": round_for_json(answers.images),
        "most": listed(order[::-1][:count]),
        "least": listed(order[:count]),
    }


def summarize_confusion(confusion: Confusion, count: int) -> dict[str, Any]:
    """Return the accuracy, also of each class, and the ``count`` most frequent confusions."""
    counts = np.asarray(confusion.counts, np.float64)
    totals = counts.sum(1)
    wrong = counts * (1 - np.eye(len(counts)))
    pairs = np.argsort(-wrong, axis=None, kind="stable")[:count]
    confused = [divmod(int(pair), len(counts)) for pair in pairs if wrong.flat[pair] > 0]
    return {
        "step": confusion.step,
        "version": confusion.version,
        "accuracy": round_for_json(confusion.accuracy()),
        "classes": [
            {
                "class": index,
                "name": confusion.names[index] if index < len(confusion.names) else "",
                "images": round_for_json(totals[index]),
                "accuracy": round_for_json(counts[index, index] / totals[index])
                if totals[index]
                else None,
            }
            for index in range(min(len(counts), MAX_NAMED))
        ],
        "confusions": [
            {"true": true, "taken_for": taken, "images": round_for_json(wrong[true, taken])}
            for true, taken in confused
        ],
    }
