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
SUMMARY = (
    "tool", "edit", "networks", "change of the output", "optimizer state kept",
    "losses of the next 20 batches", "undo", "resume", "time",
)  # fmt: skip

Row = dict[str, Any]


def blocks() -> dict[str, str]:
    """Return the blocks of the page, from the stored results."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = results["rows"]
    return {
        "versions": versions(results["machine"], rows),
        "summary": table(SUMMARY, (summary(*key, group) for key, group in grouped(rows).items())),
        "networks": networks(rows),
    }


def versions(machine: dict[str, Any], rows: list[Row]) -> str:
    """Return a sentence with the date and all versions."""
    tools = {row["tool"]: row.get("version") for row in rows}
    named = [f"{tool} {version}" for tool, version in tools.items() if version]
    absent = [tool for tool, version in tools.items() if not version]
    text = f"Measured on {machine['date']}: {', '.join(named)}; torch {machine['torch']}, "
    text += f"Python {machine['python']}."
    return text + (f" Not installed: {', '.join(absent)}." if absent else "")


def grouped(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return (tool, edit) -> the rows of its networks."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["tool"], row.get("edit", "")), []).append(row)
    return groups


def summary(tool: str, edit: str, rows: list[Row]) -> list[str]:
    """Return a row of the first table."""
    done = [row for row in rows if row["outcome"] == "done"]
    measured = [row for row in rows if "output" in row]
    if not rows[0].get("network"):  # not offered, or not installed
        return [tool, edit, rows[0]["outcome"], *[""] * (len(SUMMARY) - 3)]
    return [
        tool,
        edit,
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
    return text if edit == "remove" else f"{text}: it learns"


def words(values: list[str]) -> str:
    """Return the different results, separated by commas."""
    return ", ".join(dict.fromkeys(values))


def networks(rows: list[Row]) -> str:
    """Return the second table: the result of each network, by tool and edit."""
    groups = {key: group for key, group in grouped(rows).items() if group[0].get("network")}
    names = dict.fromkeys(row["network"] for group in groups.values() for row in group)
    cells = {(row["network"], key): result(row) for key, group in groups.items() for row in group}
    columns = ["network", *(f"{tool}, {edit}" for tool, edit in groups)]
    return table(columns, ([name, *(cells[name, key] for key in groups)] for name in names))


def result(row: Row) -> str:
    """Return what became of one network."""
    if "output" not in row:  # such as "failed: ZeroDivisionError: division by zero"
        return ": ".join(row["outcome"].split(": ")[:2])
    kept = "exact" if row["output"] <= EXACT else f"output changes by {percent(row['output'])}"
    return kept if row["outcome"] == "done" else f"{kept}; {row['outcome']}"


if __name__ == "__main__":
    update(PAGE, blocks())
