"""Writes the table of tested networks into ``docs/steering.md``: ``python docs/zoo_table.py``.

It is made from ``docs/zoo.json``, the output of
``python -m benchmarks.steering_zoo --families --json docs/zoo.json``; the rows of timm,
segmentation-models-pytorch, MONAI and ultralytics come from ``--libraries``.
"""

from __future__ import annotations

import json
from pathlib import Path

from generated_blocks import table, update

RESULTS = Path(__file__).parent / "zoo.json"
PAGE = Path(__file__).parent / "steering.md"


def blocks() -> dict[str, str]:
    """Return the block of the page: the stored results as a Markdown table."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = [
        (row["model"], f"{row['tested']} of {row['layers']}", row["removed"], row["added"])
        for row in sorted(results["rows"], key=lambda row: row["model"])
    ]
    columns = ("network", "layers tested", "one filter removed", "one filter added")
    machine = results["machine"]
    versions = f"With torch {machine['torch']}, Python {machine['python']}."
    return {"zoo": f"{table(columns, rows)}\n\n{versions}"}


if __name__ == "__main__":
    update(PAGE, blocks())
