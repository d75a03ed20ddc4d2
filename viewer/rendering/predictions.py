"""The true and the predicted class of the chosen image, as the page shows them."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.inspections import ClassScore, ImagePrediction, LayerDetail

from .formatting import format_count

__all__ = ["describe_predictions_around_edit"]

NOT_CHOSEN = "Choose a validation image (‹ ›) to see its class and the prediction."


def describe_predictions_around_edit(detail: LayerDetail) -> dict[str, Any]:
    """Return the true class, and the predictions before and after the newest edit and now.

    ``note`` says why there is nothing to show.
    """
    prediction = detail.prediction
    if prediction is None:
        return {"note": NOT_CHOSEN if detail.image_index is None else ""}
    if not prediction.classes:
        return {"note": prediction.note}
    moments = [("now", prediction)]
    if detail.before_edit is not None and detail.after_edit is not None:
        moments = [
            ("before edit", detail.before_edit),
            ("after edit", detail.after_edit),
            *moments,
        ]
    return {
        "note": "",
        "truth": "" if prediction.truth is None else _name(prediction.truth),
        "moments": [_moment(label, each) for label, each in moments if each.classes],
    }


def _moment(label: str, prediction: ImagePrediction) -> dict[str, Any]:
    best, truth = prediction.classes[0], prediction.truth
    return {
        "label": label,
        "name": _name(best),
        "probability": best.probability,
        "truth_probability": None if truth is None else truth.probability,
        "correct": None if truth is None else best.index == truth.index,
        "details": f"Batch {format_count(prediction.step)}: "
        + ", ".join(f"{_name(one)} {100 * one.probability:.1f} %" for one in prediction.classes),
    }


def _name(score: ClassScore) -> str:
    return score.name or f"class {score.index}"
