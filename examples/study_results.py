"""The results of a study, one JSON object in a line, so that it can go on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["append_results", "read_results"]


def read_results(file: Path) -> list[dict[str, Any]]:
    """Return the results so far, without a line that an interruption has cut."""
    results = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            results.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"One line of {file} is not complete: its network is trained again")
    return results


def append_results(file: Path, results: Iterable[dict[str, Any]]) -> None:
    """Append results, in a new line also after one that an interruption has cut."""
    text = file.read_text() if file.is_file() else ""
    is_cut = bool(text) and not text.endswith("\n")
    with file.open("a") as stream:
        stream.write("\n" * is_cut + "".join(json.dumps(each) + "\n" for each in results))
