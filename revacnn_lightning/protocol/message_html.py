"""Plans and replies as HTML, for notebooks. Every text is escaped: names come from the training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revacnn_lightning.protocol.messages import Applied
    from revacnn_lightning.protocol.plans import FilterChange, PlanSummary

__all__ = ["applied_edit_html", "card_html", "plan_html", "table_html"]

MUTED = "opacity: 0.7"
MAX_LISTED = 20  # filters of a layer


def plan_html(plan: PlanSummary) -> str:
    """Return a plan as HTML: what changes, and the size of the network before and after."""
    return card_html(plan.title, _effects(plan), plan.notes)


def applied_edit_html(reply: Applied) -> str:
    """Return an applied edit as HTML: when it happened, and what it has changed."""
    facts = [f"Applied before batch {reply.step:,} in {1000 * reply.seconds:.0f} ms"]
    if reply.output_change is not None:
        facts.append(f"change of the output on this batch: {reply.output_change:.3g}")
    body = f"<div>{escape('; '.join(facts))}</div>{_effects(reply.plan)}"
    return card_html(reply.plan.title, body, reply.plan.notes)


def card_html(title: str, body: str, notes: Iterable[str] = ()) -> str:
    """Return HTML with a plain title, an HTML body, and notes in plain text."""
    lines = "".join(f'<div style="{MUTED}">{escape(note)}</div>' for note in notes)
    return (
        '<div style="line-height: 1.5; font-variant-numeric: tabular-nums">'
        f"<div><strong>{escape(title)}</strong></div>{body}{lines}</div>"
    )


def table_html(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return an HTML table of plain texts; all columns but the first are aligned right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(
            f'<{tag} style="text-align: {"right" if i else "left"}">{escape(cell)}</{tag}>'
            for i, cell in enumerate(cells)
        ) + "</tr>"  # fmt: skip

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', columns)}</thead><tbody>{body}</tbody></table>"


def _effects(plan: PlanSummary) -> str:
    sizes = [("parameters", plan.parameters_before, plan.parameters_after)]
    if plan.macs_before:
        sizes.append(("multiply-accumulates", plan.macs_before, plan.macs_after))
    rows = [(name, f"{a:,}", f"{b:,}", _change(a, b)) for name, a, b in sizes]
    coupling = f"<div>Coupled: {escape(plan.coupling)}</div>" if plan.coupling else ""
    output = f"<div>{escape(plan.output_effect)}</div>" if plan.output_effect else ""
    if plan.confirmation:
        output += f"<div>To be confirmed: {escape(plan.confirmation)}</div>"
    changes = "".join(f"<div>{escape(_describe(change))}</div>" for change in plan.filter_changes)
    price = f"<div>{escape(_describe_price(plan))}</div>" if plan.price or plan.price_note else ""
    return table_html(("", "before", "after", "change"), rows) + output + price + coupling + changes


def _describe_price(plan: PlanSummary) -> str:
    price = plan.price
    if price is None:
        return f"Change of the loss unknown: {plan.price_note}"
    error = "" if math.isnan(price.error) else f" ± {price.error:.2g}"
    change = f"{price.change:+.3g}".replace("-", "−")
    return f"Predicted change of the loss: {change}{error}, from {price.loss:.3g}"


def _change(before: int, after: int) -> str:
    if before == after or not before:
        return "±0 %"
    return f"{100 * (after - before) / before:+.2f} %".replace("-", "−")


def _describe(change: FilterChange) -> str:
    parts = []
    if change.filters:
        more = len(change.filters) - MAX_LISTED
        listed = ", ".join(map(str, change.filters[:MAX_LISTED]))
        noun = "filter" if len(change.filters) == 1 else "filters"
        parts.append(f"{noun} {listed}" + (f" and {more} more" if more > 0 else ""))
    if change.added:
        parts.append(f"{change.added} new")
    return f"{change.layer}: {', '.join(parts) or 'unchanged'}"
