"""The command line, the table and the checks that all benchmarks share."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

__all__ = ["Report", "argument_parser", "progress", "progress_bar"]

T = TypeVar("T")


def argument_parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark: ``--json``, ``--check``, ``--quick``.

    Args:
        description: The benchmark's docstring, shown unchanged by ``--help``.
        quick: What ``--quick`` runs.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write all results to this file")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a check fails")
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar on stderr. The bar disappears at the end."""
    console = Console(stderr=True)
    yield from track(items, description, total=total, console=console, transient=True)


@contextmanager
def progress_bar(total: int, description: str = "working") -> Iterator[Callable[[float], None]]:
    """Show a progress bar on stderr. Call the yielded function with the work just done."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)


class Report:
    """The table, notes and checks of one benchmark.

    A check compares a measured value with its limit. `finish` prints everything, writes it as
    JSON if requested, and returns the exit code.
    """

    def __init__(self, title: str, columns: Iterable[str]) -> None:
        self.title = title
        self.columns = list(columns)
        self.rows: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._console = Console()

    def add_row(self, *values: Any, **named: Any) -> None:
        """Add a row to the table. Values are given in the order of the columns or by name.

        Raises:
            ValueError: There are more values than columns, or a name is not a column.
        """
        if len(values) > len(self.columns):
            raise ValueError(f"{len(values)} values for {len(self.columns)} columns")
        row = dict(zip(self.columns, values, strict=False)) | named
        unknown = set(row) - set(self.columns)
        if unknown:
            raise ValueError(f"unknown columns {sorted(unknown)}; the columns are {self.columns}")
        self.rows.append(row)

    def add_note(self, text: str) -> None:
        """Add a line below the table."""
        self.notes.append(text)

    def add_check(self, name: str, value: Any, limit: Any, ok: bool) -> None:
        """Add a check. ``limit`` is only printed, ``ok`` is the verdict."""
        self.checks.append({"name": name, "value": value, "limit": limit, "ok": bool(ok)})

    def check_at_most(self, name: str, value: float, limit: float) -> None:
        """Add a check that passes if the value does not exceed the limit."""
        self.add_check(name, value, f"<= {limit:g}", value <= limit)

    def check_at_least(self, name: str, value: float, limit: float) -> None:
        """Add a check that passes if the value reaches the limit."""
        self.add_check(name, value, f">= {limit:g}", value >= limit)

    def finish(self, json_path: str | Path | None = None, check: bool = False) -> int:
        """Print and save the report. Return 1 if ``check`` is set and a check failed, else 0."""
        table = Table(title=self.title)
        for column in self.columns:
            table.add_column(column)
        for row in self.rows:
            table.add_row(*(_format(row.get(column, "")) for column in self.columns))
        self._console.print(table)
        for note in self.notes:
            self._console.print(note, markup=False, highlight=False)
        for each in self.checks:
            verdict = "[green]passed[/]" if each["ok"] else "[red]failed[/]"
            self._console.print(
                f"{verdict}  {each['name']}: {_format(each['value'])} (limit: {each['limit']})"
            )
        self.save(json_path)
        return int(check and not all(each["ok"] for each in self.checks))

    def save(self, json_path: str | Path | None) -> None:
        """Write the results so far. Long benchmarks call this repeatedly, to survive a stop."""
        if json_path is not None:
            Path(json_path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data, with the machine that ran the benchmark."""
        return {
            "title": self.title,
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
                "threads": torch.get_num_threads(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "date": date.today().isoformat(),
            },
            "rows": self.rows,
            "notes": self.notes,
            "checks": self.checks,
        }


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
