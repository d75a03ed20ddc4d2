"""The bar of staged changes, with their plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from revacnn_lightning.protocol.messages import (
    OUTPUT_UNCHANGED,
    Planned,
    PlanSummary,
    Refused,
    Structure,
)

from ..rendering.plan_costs import format_network_size_before_after, format_network_size_change
from ..rendering.prices import describe_plan_loss_change
from ..tab.staged_change import StagedChange
from .html_panel import HtmlDataPanel
from .trial_panel import edit_refusal_during_trial, trial_cost_data

__all__ = ["StagingBar"]

MAX_COUPLED_LAYERS = 4


class StagingBar(HtmlDataPanel):
    """The staged changes with their plans, and the Apply button."""

    part = "staging"

    def content(self) -> dict[str, Any]:
        structure, queue = self.tab.structure, self.tab.edit_queue
        changes = self.tab.staging.changes if structure is not None else []
        if not changes or structure is None:
            return {"rows": []}
        refusal = self.tab.steering_refusal() or edit_refusal_during_trial(self.tab)
        can_apply = queue.can_apply() and not queue.is_busy and not refusal
        hint = refusal or queue.apply_hint()
        return {
            "rows": [_row(change, structure) for change in changes],
            "when": "at the next batch",
            "summary": f"{len(changes)} changes at the next batch",
            "total": _total([change.plan for change in changes if change.clipping is None]),
            "busy": queue.is_busy,
            "can_apply": can_apply,
            "apply_hint": hint,
            **trial_cost_data(queue, "" if can_apply else hint),
        }


def _row(change: StagedChange, structure: Structure) -> dict[str, Any]:
    row = {
        "key": change.key,
        "verb": change.verb,
        "title": change.title(structure),
        "plan": "pending",
        "detail": "",
        "short": "",
        "coupling": "",
        "refused": "",
        "confirmation": change.confirmation,
        "confirmed": change.is_confirmed,
        "clipping": None
        if change.clipping is None
        else {"value": change.clipping.value or 0.0, "algorithm": change.clipping.algorithm},
    }
    if isinstance(change.plan, Refused):
        row.update(plan="refused", refused=change.plan.reason)
    elif isinstance(change.plan, Planned):
        plan = change.plan.plan
        is_said = plan.confirmation and plan.output_effect == "output changes"  # by the question
        price, effect = describe_plan_loss_change(plan), "" if is_said else plan.output_effect
        changed = "" if effect == OUTPUT_UNCHANGED else effect
        others = _coupled_layers(plan, change.layer)
        row.update(
            plan="planned",
            detail=_joined(format_network_size_before_after(plan), price, effect),
            coupling=_joined(others, plan.coupling, *plan.notes),
            short=_joined(format_network_size_change(plan), price, changed, others, *plan.notes),
        )
    return row


def _total(plans: Sequence[Planned | Refused | None]) -> str:
    """Return the costs before and after all changes together; "" until all are planned.

    Each plan is made for the present network, so that the sum of their differences is close but
    not exact where one change affects the cost of another.
    """
    planned = [plan.plan for plan in plans if isinstance(plan, Planned)]
    if len(planned) < max(2, len(plans)):
        return ""
    first = planned[0]
    parameters = sum(plan.parameters_after - plan.parameters_before for plan in planned)
    macs = sum(plan.macs_after - plan.macs_before for plan in planned)
    costs = format_network_size_before_after(
        replace(
            first,
            parameters_after=max(0, first.parameters_before + parameters),
            macs_after=max(0, first.macs_before + macs),
        )
    )
    return _joined(f"about {costs}", _total_output_effect(planned))


def _joined(*parts: str) -> str:
    return " · ".join(filter(None, parts))


def _total_output_effect(plans: Sequence[PlanSummary]) -> str:
    """Return what happens to the output after all changes; "" if that is not known."""
    changing = [plan.output_effect != OUTPUT_UNCHANGED for plan in plans]
    if not all(plan.output_effect for plan in plans):
        return ""
    if not any(changing):
        return OUTPUT_UNCHANGED
    return f"{sum(changing)} of {len(plans)} may change the output"


def _coupled_layers(plan: PlanSummary, layer: str) -> str:
    """Return which coupled filters of other layers are affected."""
    others = [
        f"{change.layer} ({len(change.filters) or change.added})"
        for change in plan.filter_changes
        if change.layer != layer
    ]
    more = " …" if len(others) > MAX_COUPLED_LAYERS else ""
    return f"together with {', '.join(others[:MAX_COUPLED_LAYERS])}{more}" if others else ""
