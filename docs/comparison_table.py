"""Writes the tables of ``docs/comparison.md``: ``python docs/comparison_table.py``.

They are made from ``docs/comparison.json``, the output of
``python -m benchmarks.peers_edits --json docs/comparison.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generated_blocks import table, update

RESULTS = Path(__file__).parent / "comparison.json"
PAGE = Path(__file__).parent / "comparison.md"
EXACT = 1e-9  # as in benchmarks/peers_edits.py
EDITS = ("remove", "add")
MEASURED = (
    "networks", "change of the output", "optimizer state kept", "losses of the next 20 batches",
    "undo", "resume", "time",
)  # fmt: skip

Row = dict[str, Any]


def blocks() -> dict[str, str]:
    """Return the blocks of the page, from the stored results."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = results["rows"]
    content = {"versions": versions(results["machine"], rows)}
    for edit in EDITS:
        tools = by_tool(rows, edit)
        summaries = [summary(edit, group) for group in tools.values()]
        lines = [[name, *cells] for name, *cells in zip(MEASURED, *summaries, strict=True)]
        content[edit] = table(["measured", *tools], lines)
        content[f"{edit}_networks"] = networks(tools)
    return content


def versions(machine: dict[str, Any], rows: list[Row]) -> str:
    """Return a sentence with the date and all versions."""
    tools = {row["tool"]: row.get("version") for row in rows}
    named = [f"{tool} {version}" for tool, version in tools.items() if version]
    absent = [tool for tool, version in tools.items() if not version]
    text = f"Measured on {machine['date']}: {', '.join(named)}; torch {machine['torch']}, "
    text += f"Python {machine['python']}."
    return text + (f" Not installed: {', '.join(absent)}." if absent else "")


def by_tool(rows: list[Row], edit: str) -> dict[str, list[Row]]:
    """Return tool -> its rows of an edit; those of a tool that is not installed have none."""
    tools: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("edit", edit) == edit:
            tools.setdefault(row["tool"], []).append(row)
    return tools


def summary(edit: str, rows: list[Row]) -> list[str]:
    """Return what is `MEASURED` of a tool."""
    done = [row for row in rows if row["outcome"] == "done"]
    measured = [row for row in rows if "output" in row]
    if not rows[0].get("network"):  # not offered, or not installed
        return [rows[0]["outcome"], *["–"] * (len(MEASURED) - 1)]
    return [
        f"{len(done)} of {len(rows)}",
        change(max(row["output"] for row in measured)) if measured else "",
        share([row["state"] for row in measured]),
        losses(edit, [row["loss"] for row in done]),
        words([row["undo"] for row in measured]),
        words([row["resume"] for row in measured]),
        f"{sorted(row['ms'] for row in measured)[len(measured) // 2]:.0f} ms" if measured else "",
    ]


def change(value: float) -> str:
    """Return a relative change in words."""
    return "none" if value <= EXACT else f"up to {percent(value)}"


def percent(value: float) -> str:
    """Return a share with two digits, such as ``0.031 %``."""
    return f"{float(f'{100 * value:.2g}'):g} %"


def share(values: list[float]) -> str:
    """Return how much of the optimizer's state is kept."""
    if not values or min(values) == 1.0:
        return "all" if values else ""
    if max(values) == 0.0:
        return "none"
    low, high = percent(min(values)), percent(max(values))
    return low if low == high else f"{low} to {high}"


def losses(edit: str, values: list[float]) -> str:
    """Return how the losses compare with those of the unedited network."""
    if not values:
        return ""
    if max(values) <= EXACT:
        return "the same"
    text = f"differ by up to {percent(max(values))}"
    return text if edit == "remove" else f"{text}: the new filter learns"


def words(values: list[str]) -> str:
    """Return the different results, separated by commas."""
    return ", ".join(dict.fromkeys(values))


def networks(tools: dict[str, list[Row]]) -> str:
    """Return the table of the networks, with a column for each tool."""
    cells = {
        (row["network"], tool): result(row)
        for tool, rows in tools.items()
        for row in rows
        if row.get("network")
    }
    names = dict.fromkeys(name for name, _ in cells)
    columns = [tool for tool in tools if any(key[1] == tool for key in cells)]
    return table(
        ["network", *columns], ([name, *(cells[name, tool] for tool in columns)] for name in names)
    )


def result(row: Row) -> str:
    """Return what became of one network."""
    if "output" not in row:  # such as "failed: ZeroDivisionError: division by zero"
        return ": ".join(row["outcome"].split(": ")[:2])
    kept = "exact" if row["output"] <= EXACT else f"output changes by {percent(row['output'])}"
    return kept if row["outcome"] == "done" else f"{kept}; {row['outcome']}"


if __name__ == "__main__":
    update(PAGE, blocks())
