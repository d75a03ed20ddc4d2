"""The bar of staged changes, the reply to the last one, and the list of all of them."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.messages import Planned, PlanSummary, Refused, Structure

from ..rendering.formatting import format_count, format_relative_change, format_share, format_si
from ..runs.request_log import RequestRecord
from ..tab.staging import StagedChange
from .html_panel import HtmlPanel

__all__ = ["ChangeListPanel", "ReplyPanel", "StagingBar"]

APPLIED_SECONDS = 10.0  # then the reply leaves; it stays in the list of changes
SHOWN_RECORDS = 30
SAME = 1e-5  # relative change of the output that rounding explains


class StagingBar(HtmlPanel):
    """What is staged, what it would do, and whether the training would do it."""

    part = "staging"

    def content(self) -> dict[str, Any]:
        structure = self.tab.structure
        rows = self.tab.staging.rows if structure is not None else []
        if not rows or structure is None:
            return {"rows": []}
        refused = any(isinstance(row.plan, Refused) for row in rows)
        return {
            "rows": [_row(row, structure) for row in rows],
            "when": "at the next batch",
            "summary": f"{len(rows)} changes at the next batch",
            "busy": self.tab.applying.busy,
            "can_apply": self.tab.applying.may_apply() and not self.tab.applying.busy,
            "hint": "The training would refuse this" if refused else "Send to the training",
        }


def _row(row: StagedChange, structure: Structure) -> dict[str, Any]:
    content = {
        "key": row.key,
        "verb": row.verb,
        "title": row.title(structure),
        "plan": "asked",
        "detail": "",
        "why": "",
        "refused": "",
    }
    if isinstance(row.plan, Refused):
        content.update(plan="refused", refused=row.plan.reason)
    elif isinstance(row.plan, Planned):
        plan = row.plan.plan
        content.update(plan="planned", detail=_figures(plan), why=_company(plan, row.layer))
    return content


def _figures(plan: PlanSummary) -> str:
    """Parameters and multiply-accumulates before and after."""
    figures = (
        ("parameters", plan.parameters_before, plan.parameters_after, format_count),
        ("multiply-accumulates", plan.macs_before, plan.macs_after, format_si),
    )
    return " · ".join(
        f"{words(before)} → {words(after)} {name} ({format_relative_change((after - before) / before)})"
        if before != after
        else f"{words(before)} {name}, unchanged"
        for name, before, after, words in figures
        if before
    )


def _company(plan: PlanSummary, layer: str) -> str:
    """What goes together with it, and why; and what else should be known."""
    others = [
        f"{part.layer} ({len(part.removed) or part.added})"
        for part in plan.filter_changes
        if part.layer != layer
    ]
    words = []
    if others:
        words.append(f"together with {', '.join(others[:4])}{' …' if len(others) > 4 else ''}")
    return " · ".join([*words, *filter(None, [plan.coupling]), *plan.notes])


class ReplyPanel(HtmlPanel):
    """What became of the last request of this tab."""

    part = "reply"

    def content(self) -> dict[str, Any]:
        if self.tab.applying.error:
            return {"title": self.tab.applying.error, "state": "refused", "outcome": "", "text": ""}
        record = self.tab.applying.reply
        if record is None:
            return {}
        if record.state in ("applied", "done") and self.tab.applying.reply_age > APPLIED_SECONDS:
            self.tab.applying.reply = None
            return {}
        return {
            "title": record.title,
            "state": record.state,
            "outcome": _outcome(record),
            "text": " · ".join(filter(None, [_what(record), _size(record)])),
        }


class ChangeListPanel(HtmlPanel):
    """Every request of this server, newest first."""

    part = "changes"

    def content(self) -> dict[str, Any]:
        state = self.tab.state
        records = [] if state is None else list(state.requests.records.values())
        ended = self.tab.follower.health().ended
        why_not = (
            "A change is being applied"
            if self.tab.applying.busy
            else "There is no training any more"
        )
        return {
            "records": [
                {
                    "title": record.title,
                    "state": record.state,
                    "about": _size(record),
                    "text": " · ".join(filter(None, [_outcome(record), _what(record)])),
                }
                for record in reversed(records[-SHOWN_RECORDS:])
            ],
            "can_undo": self.tab.structure is not None and not self.tab.applying.busy and not ended,
            "why_not": why_not,
        }


def _what(record: RequestRecord) -> str:
    """What a request led to: the new widths, and what became of the output."""
    if record.state != "applied" or record.plan is None:
        return record.text
    parts = [record.text]
    if record.output_change is not None:
        moved = record.output_change >= SAME
        how = f"changed by {format_share(record.output_change)}" if moved else "is unchanged"
        parts.append(f"the output {how}")
    return " · ".join(filter(None, parts))


def _size(record: RequestRecord) -> str:
    plan = record.plan
    same = plan is None or plan.parameters_before == plan.parameters_after
    return "" if plan is None or same else _figures(plan)


def _outcome(record: RequestRecord) -> str:
    if record.state == "applied":
        return f"applied at batch {format_count(record.step)}"
    if record.state == "done":
        return "done"
    return "refused" if record.state == "refused" else "sent, waiting for the next batch"
