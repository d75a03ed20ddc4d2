"""A journal for people: as lines of text, and as a Python script that repeats its edits."""

from __future__ import annotations

import time

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.plain_text import escape_control_characters
from revacnn_lightning.steering.journal import Journal

__all__ = ["format_journal", "format_script"]


def format_journal(journal: Journal) -> str:
    """Return one line per edit (number, title, parameters), followed by its reason and notes.

    Below them, one line per request says who has made it, when, and what came of it.
    """
    lines = [] if journal.entries else ["no edits"]
    for number, entry in enumerate(journal.entries, 1):
        plan = entry.plan
        growth = plan.parameters_after - plan.parameters_before
        lines.append(
            f"{number:4}  {escape_control_characters(plan.title)}  ({growth:+d} parameters)"
        )
        lines += [
            f"      {escape_control_characters(each)}"
            for each in (plan.coupling, *plan.notes)
            if each
        ]
    if journal.requests:
        lines += ["", "Requests", *(_request_line(one) for one in journal.requests)]
    return "\n".join(lines)


def _request_line(outcome: RequestOutcome) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(outcome.time))
    where = f" at batch {outcome.step}" if outcome.step >= 0 else ""
    why = f": {outcome.detail}" if outcome.state == "refused" else ""
    text = f"{moment}  {outcome.state}{where} by {outcome.who}  {outcome.title}{why}"
    return escape_control_characters(text)


def format_script(journal: Journal) -> str:
    """Return a Python script whose ``edit(model)`` repeats the edits on a fresh, unedited model."""
    data = journal.to_data()
    # Tensors, which only undo and redo need, and who has requested what.
    for key in ("records", "copies", "undone", "undone_records", "requests"):
        del data[key]
    plans = data.pop("plans")
    # A title is text from a file: it stays in its comment, and in its literal.
    listed = [
        f"    # {escape_control_characters(plan['title'])}\n    {plan!r},\n" for plan in plans
    ]
    return (
        f'"""Repeats {len(plans)} edits on a fresh model; load its weights afterwards."""\n\n'
        "from revacnn_lightning.steering import Journal\n\n"
        "PLANS = [\n" + "".join(listed) + "]\n\n\n"
        "def edit(model):\n"
        f"    Journal.from_data({{**{data!r}, 'plans': PLANS}}).replay(model)\n"
    )
