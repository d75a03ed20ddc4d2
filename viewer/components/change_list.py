"""The reply to the last request, and the list of all requests."""

from __future__ import annotations

from typing import Any, Literal

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.plans import PlanSummary

from ..rendering.formatting import (
    format_count,
    format_date_time,
    format_share,
    format_short_date_time,
)
from ..rendering.plan_costs import format_network_size_before_after
from ..runs.change_order import Change, EditMark, RequestRecord, change_time, newest_first
from ..tab.tab_state import TabState
from .alert_rows import alert_row_data
from .edit_effect_text import edit_effect_data
from .html_panel import HtmlDataPanel

__all__ = ["EditsAndAlertsPanel", "ReplyPanel"]

APPLIED_SECONDS = 10.0  # how long the reply to an applied request is shown
MAX_RECORDS = 30
OUTPUT_TOLERANCE = 1e-5  # relative output changes below this are rounding errors


class ReplyPanel(HtmlDataPanel):
    """The outcome of the last request of this tab."""

    part = "reply"

    def content(self) -> dict[str, Any]:
        queue = self.tab.edit_queue
        if queue.error:
            return {"title": queue.error, "state": "refused", "outcome": "", "text": ""}
        record = queue.shown_reply
        if record is None:
            return {}
        is_over = record.state == "applied" and queue.reply_age > APPLIED_SECONDS
        if record.state == "done":  # the trial that has started has a bar of its own
            is_over = record.is_trial or queue.reply_age > APPLIED_SECONDS
        if is_over:
            queue.shown_reply = None
            return {}
        return {
            "title": record.title,
            "state": record.state,
            "outcome": _outcome(record),
            "text": " · ".join(filter(None, [_result(record), _size_change(record)])),
        }


class EditsAndAlertsPanel(HtmlDataPanel):
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
            state.requests.is_reply_pending,  # ends with time, not with a message
            *state.alerts,
            state.edit_effects.revision,
            tab.edit_queue.is_busy,
            tab.steering_refusal(),
            tab.chart_settings.metric,
        )

    def content(self) -> dict[str, Any]:
        state = self.tab.state
        changes: list[Change] = []
        if state is not None:
            changes = newest_first([*reversed(state.requests.requests_and_edits()), *state.alerts])
        return {
            "records": [
                {
                    **(
                        alert_row_data(change)
                        if isinstance(change, Alert)
                        else self._record(change)
                    ),
                    **_time(change),
                }
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
        effect = None if state is None else state.edit_effects.effect_of(change.version)
        predicted: PlanSummary | RequestOutcome | None = None
        if not isinstance(change, EditMark):
            predicted = change.plan if isinstance(change, RequestRecord) else change
        return edit_effect_data(predicted, effect, self.tab.chart_settings.metric)

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
    return format_network_size_before_after(plan)


def _time(change: Change) -> dict[str, str]:
    """Return the time of a change, short and whole; "" if it is unknown."""
    moment = change_time(change)
    if not moment:
        return {"time": "", "moment": ""}
    return {"time": format_short_date_time(moment), "moment": format_date_time(moment)}


def _explain_who(outcome: RequestOutcome) -> str:
    """Return how certain the sender of a request is."""
    notes = [f"The key {outcome.key!r} is certain", "the host is what the client says"]
    text = "; ".join(notes if outcome.host else notes[:1])
    return f"{text}." + (f" Connected from {outcome.address}." if outcome.address else "")


def _outcome(record: RequestRecord | RequestOutcome) -> str:
    """Return what became of a request, and at which batch."""
    if record.state == "sent":
        return "sent, waiting for the next batch"
    at = f"at batch {format_count(record.step)}" if record.step >= 0 else ""
    text = record.detail if isinstance(record, RequestOutcome) else record.text
    # The reply to a command says what was done, if that is not plain.
    what = "" if record.state == "done" and (text or at) else record.state
    return " ".join(filter(None, [what, at]))
