"""A journal for people: as lines of text, and as a Python script that repeats its edits."""

from __future__ import annotations

from revacnn_lightning.protocol.plain_text import to_plain_text
from revacnn_lightning.steering.journal import Journal

__all__ = ["format_journal", "format_script"]


def format_journal(journal: Journal) -> str:
    """Return one line per edit (number, title, parameters), followed by its reason and notes."""
    if not journal.entries:
        return "no edits"
    lines = []
    for number, entry in enumerate(journal.entries, 1):
        plan = entry.plan
        growth = plan.parameters_after - plan.parameters_before
        lines.append(f"{number:4}  {to_plain_text(plan.title)}  ({growth:+d} parameters)")
        lines += [f"      {to_plain_text(each)}" for each in (plan.coupling, *plan.notes) if each]
    return "\n".join(lines)


def format_script(journal: Journal) -> str:
    """Return a Python script whose ``edit(model)`` repeats the edits on a fresh, unedited model."""
    data = journal.to_data()
    # Tensors, which only undo and redo need.
    for key in ("records", "copies", "undone", "undone_records"):
        del data[key]
    plans = data.pop("plans")
    # A title is text from a file: it stays in its comment, and in its literal.
    listed = [f"    # {to_plain_text(plan['title'])}\n    {plan!r},\n" for plan in plans]
    return (
        f'"""Repeats {len(plans)} edits on a fresh model; load its weights afterwards."""\n\n'
        "from revacnn_lightning.steering import Journal\n\n"
        "PLANS = [\n" + "".join(listed) + "]\n\n\n"
        "def edit(model):\n"
        f"    Journal.from_data({{**{data!r}, 'plans': PLANS}}).replay(model)\n"
    )
