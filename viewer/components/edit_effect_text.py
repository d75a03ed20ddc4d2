"""The effect of an edit in words: the loss and the main metric before and after it."""

from __future__ import annotations

import math

from revacnn_lightning.protocol.messages import PlanSummary

from ..rendering.formatting import count_of, format_number
from ..rendering.prices import explain_price, format_price
from ..runs.edit_effects import REPORTS, EditEffect, Level
from ..runs.metric_names import LOSS, main_metric

__all__ = ["describe_effect", "effect_data", "explain_effect"]

PENDING = "…"
UNKNOWN = "–"


def effect_data(plan: PlanSummary | None, effect: EditEffect | None, metric: str) -> dict[str, str]:
    """Return the predicted and the measured effect of an edit, and what they mean.

    Args:
        plan: of the edit, if it is known.
        effect: what was measured, if anything was.
        metric: the family of metrics that the user has chosen to see.
    """
    price = None if plan is None else plan.price
    texts, notes = [], []
    if price is not None:
        texts.append(f"predicted {format_price(price)}")
        notes.append(explain_price(price))
    if effect is not None:
        texts.append(describe_effect(effect, metric))
        notes.append(explain_effect(effect))
    return {"effect": " · ".join(texts), "effect_note": " ".join(notes)}


def describe_effect(effect: EditEffect, chosen: str = LOSS) -> str:
    """Return for example ``loss 0.412 ± 0.031 → 0.398 ± 0.029 · val acc 0.780 → 0.791``.

    Args:
        effect: of the edit.
        chosen: the family of metrics that the user has chosen to see.
    """
    known = {**effect.before, **effect.after}
    metric = main_metric((name for name in known if name != LOSS), chosen)
    names = [name for name in (LOSS, metric) if name in known]
    return " · ".join(_change(name, effect) for name in names)


def explain_effect(effect: EditEffect) -> str:
    """Return what the numbers of `describe_effect` mean."""
    sentences = [
        f"Mean ± standard deviation over {count_of(effect.batches_before, 'batch')} before the "
        f"edit and {count_of(effect.batches_after, 'batch')} after it."
    ]
    if effect.batches_after < REPORTS[0]:
        sentences = [f"The effect is shown {REPORTS[0]} batches after the edit."]
    if effect.n_edits > 1:
        sentences.append(f"{effect.n_edits} edits that came close together share these numbers.")
    return " ".join(sentences)


def _change(name: str, effect: EditEffect) -> str:
    before, after = effect.before.get(name), effect.after.get(name)
    return f"{name.replace('_', ' ')} {_format(before, UNKNOWN)} → {_format(after, PENDING)}"


def _format(level: Level | None, missing: str) -> str:
    if level is None:
        return missing
    spread = "" if math.isnan(level.spread) else f" ± {format_number(level.spread)}"
    return format_number(level.mean) + spread
