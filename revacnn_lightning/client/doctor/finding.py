"""What a check has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from revacnn_lightning.protocol.plain_text import escape_control_characters

__all__ = ["Finding", "format_findings", "has_problem", "to_json"]

MARKS = {"ok": "✓", "note": "·", "problem": "✗"}


class Finding(Struct, frozen=True):
    """The result of one check.

    Attributes:
        check: what was checked.
        status: ``ok``, ``problem``, or ``note`` for what is unusual but may be intended.
        text: what was found.
        advice: what to do about it; "" if nothing.
    """

    check: str
    status: Literal["ok", "note", "problem"]
    text: str
    advice: str = ""


def has_problem(findings: Sequence[Finding]) -> bool:
    """Return whether one of the findings is a problem."""
    return any(finding.status == "problem" for finding in findings)


def to_json(findings: Sequence[Finding]) -> str:
    """Return ``{"ok": bool, "findings": [...]}``."""
    content = {"ok": not has_problem(findings), "findings": findings}
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def format_findings(findings: Sequence[Finding]) -> str:
    """Return one line for each finding and one for each advice, and a summary."""
    checks = [
        escape_control_characters(finding.check) for finding in findings
    ]  # which may name a run
    width = max(map(len, checks), default=0)
    lines = []
    for check, finding in zip(checks, findings, strict=True):
        text = escape_control_characters(finding.text)
        lines.append(f"{MARKS[finding.status]} {check:{width}}  {text}")
        if finding.advice:
            lines.append(f"  {'':{width}}  → {escape_control_characters(finding.advice)}")
    n = sum(finding.status == "problem" for finding in findings)
    count = f"{n} problem{'s' if n > 1 else ''} found." if n else "No problem found."
    return "\n".join([*lines, "", count])
