"""The bar of staged changes, the reply to the last request, and the list of all requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec.structs import replace

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.messages import (
    OUTPUT_UNCHANGED,
    Planned,
    PlanSummary,
    Refused,
    Structure,
)

from ..rendering.formatting import (
    format_count,
    format_moment,
    format_relative_change,
    format_share,
    format_si,
)
from ..rendering.prices import price_text
from ..runs.request_log import EditMark, RequestRecord
from ..tab.staged_change import StagedChange
from ..tab.tab_state import TabState
from .alert_rows import alert_row, insert_alerts
from .edit_effect_text import effect_data
from .html_panel import HtmlPanel
from .trial_panel import trial_data, trial_under_way

__all__ = ["ChangeListPanel", "ReplyPanel", "StagingBar"]

APPLIED_SECONDS = 10.0  # how long the reply to an applied request is shown
MAX_RECORDS = 30
MAX_COUPLED_LAYERS = 4
OUTPUT_TOLERANCE = 1e-5  # relative output changes below this are rounding errors


class StagingBar(HtmlPanel):
    """The staged changes with their plans, and the Apply button."""

    part = "staging"

    def content(self) -> dict[str, Any]:
        structure, queue = self.tab.structure, self.tab.edit_queue
        changes = self.tab.staging.changes if structure is not None else []
        if not changes or structure is None:
            return {"rows": []}
        refusal = self.tab.steering_refusal() or trial_under_way(self.tab)
        can_apply = queue.can_apply() and not queue.is_busy and not refusal
        hint = refusal or queue.apply_hint()
        return {
            "rows": [_row(change, structure) for change in changes],
            "when": "at the next batch",
            "summary": f"{len(changes)} changes at the next batch",
            "total": _total([change.plan for change in changes]),
            "busy": queue.is_busy,
            "can_apply": can_apply,
            "apply_hint": hint,
            **trial_data(queue, "" if can_apply else hint),
        }


def _row(change: StagedChange, structure: Structure) -> dict[str, Any]:
    row = {
        "key": change.key,
        "verb": change.verb,
        "title": change.title(structure),
        "plan": "pending",
        "detail": "",
        "output": "",
        "coupling": "",
        "refused": "",
        "confirmation": change.confirmation,
        "confirmed": change.is_confirmed,
    }
    if isinstance(change.plan, Refused):
        row.update(plan="refused", refused=change.plan.reason)
    elif isinstance(change.plan, Planned):
        plan = change.plan.plan
        is_said = plan.confirmation and plan.output_effect == "output changes"  # by the question
        parts = [price_text(plan), "" if is_said else plan.output_effect]
        row.update(plan="planned", detail=_costs(plan), output=" · ".join(filter(None, parts)))
        row.update(coupling=_coupling(plan, change.layer))
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
    costs = _costs(
        replace(
            first,
            parameters_after=max(0, first.parameters_before + parameters),
            macs_after=max(0, first.macs_before + macs),
        )
    )
    return " · ".join(filter(None, [f"about {costs}", _total_output_effect(planned)]))


def _total_output_effect(plans: Sequence[PlanSummary]) -> str:
    """Return what happens to the output after all changes; "" if that is not known."""
    changing = [plan.output_effect != OUTPUT_UNCHANGED for plan in plans]
    if not all(plan.output_effect for plan in plans):
        return ""
    if not any(changing):
        return OUTPUT_UNCHANGED
    return f"{sum(changing)} of {len(plans)} may change the output"


def _costs(plan: PlanSummary) -> str:
    """Return the parameters and multiply-accumulates before and after the edit."""
    figures = (
        ("parameters", plan.parameters_before, plan.parameters_after, format_count),
        ("multiply-accumulates", plan.macs_before, plan.macs_after, format_si),
    )
    texts = []
    for name, before, after, format_value in figures:
        if before and before != after:
            change = format_relative_change((after - before) / before)
            texts.append(f"{format_value(before)} → {format_value(after)} {name} ({change})")
        elif before:
            texts.append(f"{format_value(before)} {name}, unchanged")
    return " · ".join(texts)


def _coupling(plan: PlanSummary, layer: str) -> str:
    """Return which coupled filters of other layers are affected and why, and further notes."""
    others = [
        f"{change.layer} ({len(change.filters) or change.added})"
        for change in plan.filter_changes
        if change.layer != layer
    ]
    texts = []
    if others:
        more = " …" if len(others) > MAX_COUPLED_LAYERS else ""
        texts.append(f"together with {', '.join(others[:MAX_COUPLED_LAYERS])}{more}")
    return " · ".join([*texts, *filter(None, [plan.coupling]), *plan.notes])


class ReplyPanel(HtmlPanel):
    """The outcome of the last request of this tab."""

    part = "reply"

    def content(self) -> dict[str, Any]:
        queue = self.tab.edit_queue
        if queue.error:
            return {"title": queue.error, "state": "refused", "outcome": "", "text": ""}
        record = queue.shown_reply
        if record is None:
            return {}
        if record.state in ("applied", "done") and queue.reply_age > APPLIED_SECONDS:
            queue.shown_reply = None
            return {}
        return {
            "title": record.title,
            "state": record.state,
            "outcome": _outcome(record),
            "text": " · ".join(filter(None, [_result(record), _size_change(record)])),
        }


class ChangeListPanel(HtmlPanel):
    """All requests of this server, edits of the network and alerts, newest first."""

    part = "changes"

    def __init__(self, tab: TabState) -> None:
        super().__init__(tab)
        self._shown_key: tuple[object, ...] = ()

    def update(self) -> bool:
        key = self._key()
        if key == self._shown_key:
            return False
        self._shown_key = key
        return super().update()

    def _key(self) -> tuple[object, ...]:
        tab, state = self.tab, self.tab.state
        if state is None:
            return (None,)
        return (
            state,
            state.structure_revision,
            state.requests.revision,
            state.requests.is_reply_due,  # ends with time, not with a message
            *state.alerts,
            state.edit_effects.revision,
            tab.edit_queue.is_busy,
            tab.steering_refusal(),
            tab.chart_settings.metric,
        )

    def content(self) -> dict[str, Any]:
        state = self.tab.state
        changes = [] if state is None else insert_alerts(state.requests.changes(), state.alerts)
        return {
            "records": [
                alert_row(change) if isinstance(change, Alert) else self._record(change)
                for change in changes[:MAX_RECORDS]
            ],
            "undo_disabled": self._history_disabled("undo"),
            "redo_disabled": self._history_disabled("redo"),
        }

    def _record(self, change: RequestRecord | RequestOutcome | EditMark) -> dict[str, Any]:
        """Return the row of a request, or of an edit that was not requested here."""
        who, who_note, size_change = "", "", ""
        if isinstance(change, EditMark):
            text = f"at batch {format_count(change.step)}"
        elif isinstance(change, RequestOutcome):
            text = " · ".join(filter(None, [_outcome(change), change.detail]))
            who, who_note = f"by {change.who}", _explain_who(change)
        else:
            text = " · ".join(filter(None, [_outcome(change), _result(change)]))
            size_change = _size_change(change)
        return {
            "title": change.title or "Network changed, not from this viewer",
            "state": "applied" if isinstance(change, EditMark) else change.state,
            "size_change": size_change,
            "text": text,
            "who": who,
            "who_note": who_note,
            **self._effect(change),
        }

    def _effect(self, change: RequestRecord | RequestOutcome | EditMark) -> dict[str, str]:
        state = self.tab.state
        effect = None if state is None else state.edit_effects.of(change.version)
        plan = change.plan if isinstance(change, RequestRecord) else None
        return effect_data(plan, effect, self.tab.chart_settings.metric)

    def _history_disabled(self, action: Literal["undo", "redo"]) -> str:
        """Return why no edit can be undone, or redone; "" if one can."""
        structure = self.tab.structure
        if refusal := self.tab.steering_refusal():
            return refusal
        if self.tab.edit_queue.is_busy:
            return "A change is being applied."
        if structure is None:
            return "No training is attached."
        if action == "redo" and not structure.redoable:
            return "No edit was undone since the last one."
        if action == "undo" and structure.undoable == 0:
            return "There is no edit to undo."
        return ""


def _result(record: RequestRecord) -> str:
    """Return the new widths and the change of the output, or the text of another reply."""
    if record.state != "applied" or record.plan is None:
        return record.text
    texts = [record.text]
    if record.output_change is not None:
        is_changed = record.output_change >= OUTPUT_TOLERANCE
        change = (
            f"changed by {format_share(record.output_change)}" if is_changed else "is unchanged"
        )
        texts.append(f"the output {change}")
    return " · ".join(filter(None, texts))


def _size_change(record: RequestRecord) -> str:
    plan = record.plan
    if plan is None or plan.parameters_before == plan.parameters_after:
        return ""
    return _costs(plan)


def _explain_who(outcome: RequestOutcome) -> str:
    """Return when a request was made, and how certain its sender is."""
    notes = [f"The key {outcome.key!r} is certain", "the host is what the client says"]
    text = "; ".join(notes if outcome.host else notes[:1])
    return f"{format_moment(outcome.time)}. {text}." + (
        f" Connected from {outcome.address}." if outcome.address else ""
    )


def _outcome(record: RequestRecord | RequestOutcome) -> str:
    if record.state == "applied":
        return f"applied at batch {format_count(record.step)}"
    if record.state == "done":
        return "done"
    return "refused" if record.state == "refused" else "sent, waiting for the next batch"
