"""Writes the table of tested networks into ``docs/steering.md``: ``python docs/zoo_table.py``.

It is made from ``docs/zoo.json``, the output of
``python -m benchmarks.steering_zoo --families --json docs/zoo.json``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "zoo.json"
PAGE = Path(__file__).parent / "steering.md"
BLOCK = re.compile(r"(<!-- generated: zoo -->\n).*?(<!-- end -->)", re.DOTALL)


def table(results: dict[str, Any]) -> str:
    """Return the results of the benchmark as a Markdown table."""
    lines = [
        "| network | convolutions | one filter removed | one filter added |",
        "|---|---|---|---|",
    ]
    for row in sorted(results["rows"], key=lambda row: row["model"]):
        cells = (row["model"], row["tested"], row["removed"], row["added"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    machine = results["machine"]
    lines += ["", f"With torch {machine['torch']}, Python {machine['python']}."]
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the text of the page with the table of the stored results."""
    content = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    return BLOCK.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
