"""The effect of an edit in words: the loss and the main metric before and after it."""

from __future__ import annotations

import math

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import PlanSummary

from ..rendering.formatting import count_of, format_number
from ..rendering.prices import explain_removal_price, format_removal_price
from ..runs.edit_effects import REPORTS, EditEffect, MeanAndSpread
from ..runs.metric_names import LOSS, main_metric

__all__ = ["describe_measured_effect", "edit_effect_data", "explain_measured_effect"]

PENDING = "…"
UNKNOWN = "–"


def edit_effect_data(
    predicted: PlanSummary | RequestOutcome | None, measured: EditEffect | None, metric_family: str
) -> dict[str, str]:
    """Return ``effect``, the predicted and the measured effect in words, and ``effect_note``.

    ``effect_note`` explains what the numbers mean.

    Args:
        predicted: the plan or the outcome of the edit, which has its price if that is known.
        measured: the measured effect; None if there is none.
        metric_family: the family of metrics that the user has chosen to see.
    """
    texts, notes = [], []
    if predicted is not None and predicted.price is not None:
        texts.append(f"predicted {format_removal_price(predicted.price)}")
        notes.append(explain_removal_price(predicted.price))
    elif predicted is not None and predicted.price_note:
        texts.append("not predicted")
        notes.append(f"Not predicted: {predicted.price_note}.")
    if measured is not None:
        texts.append(describe_measured_effect(measured, metric_family))
        notes.append(explain_measured_effect(measured))
    return {"effect": " · ".join(texts), "effect_note": " ".join(notes)}


def describe_measured_effect(effect: EditEffect, metric_family: str = LOSS) -> str:
    """Return for example ``loss 0.412 ± 0.031 → 0.398 ± 0.029 · val acc 0.780 → 0.791``.

    If several edits share the numbers, it begins with ``3 edits together:``.

    Args:
        effect: the measured effect of the edit.
        metric_family: the family of metrics that the user has chosen to see.
    """
    known = {**effect.before, **effect.after}
    metric = main_metric((name for name in known if name != LOSS), metric_family)
    names = [name for name in (LOSS, metric) if name in known]
    text = " · ".join(_change(name, effect) for name in names)
    return f"{effect.n_edits} edits together: {text}" if text and effect.n_edits > 1 else text


def explain_measured_effect(effect: EditEffect) -> str:
    """Return sentences that explain what the numbers of `describe_measured_effect` mean."""
    sentences = [
        f"Mean ± standard deviation over {count_of(effect.batches_before, 'batch')} before the "
        f"edit and {count_of(effect.batches_after, 'batch')} after it."
    ]
    if effect.batches_after < REPORTS[0]:
        sentences = [f"The effect is shown {REPORTS[0]} batches after the edit."]
    if effect.n_edits > 1:
        sentences.append(
            f"{effect.n_edits} edits that came close together share these numbers: they are of all "
            "of them, while each prediction is of one edit."
        )
    return " ".join(sentences)


def _change(name: str, effect: EditEffect) -> str:
    before, after = effect.before.get(name), effect.after.get(name)
    return f"{name.replace('_', ' ')} {_format(before, UNKNOWN)} → {_format(after, PENDING)}"


def _format(level: MeanAndSpread | None, missing: str) -> str:
    if level is None:
        return missing
    spread = "" if math.isnan(level.spread) else f" ± {format_number(level.spread)}"
    return format_number(level.mean) + spread
