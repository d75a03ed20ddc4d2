"""What every benchmark prints and writes: a table, its checks, JSON, and an exit code."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

__all__ = ["Report", "progress", "progress_bar"]

T = TypeVar("T")


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar on stderr, which is gone when the work is done."""
    console = Console(stderr=True)
    yield from track(items, description, total=total, console=console, transient=True)


@contextmanager
def progress_bar(total: int, description: str = "working") -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr, advanced by calling what this yields with the work done."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)


class Report:
    """Rows and checks of one benchmark run.

    A check is a figure with its limit. ``finish`` prints everything, writes it as JSON where
    asked, and gives the exit code: 1 if checking is on and a figure was missed, which is named.
    """

    def __init__(self, title: str, columns: Iterable[str]) -> None:
        self.title = title
        self.columns = list(columns)
        self.rows: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._console = Console()

    def row(self, *values: Any, **named: Any) -> None:
        """One line of the table: values in the order of the columns, or by their names."""
        if len(values) > len(self.columns):
            raise ValueError(f"{len(values)} values for {len(self.columns)} columns")
        row = dict(zip(self.columns, values, strict=False)) | named
        unknown = set(row) - set(self.columns)
        if unknown:
            raise ValueError(f"no column {sorted(unknown)}; there are {self.columns}")
        self.rows.append(row)

    def note(self, text: str) -> None:
        """A line below the table."""
        self.notes.append(text)

    def check(self, name: str, value: Any, limit: Any, ok: bool) -> None:
        """A figure that must be reached: ``limit`` says what must be, in words or as a number."""
        self.checks.append({"name": name, "value": value, "limit": limit, "ok": bool(ok)})

    def finish(self, json_path: str | Path | None = None, check: bool = False) -> int:
        """Print, write, and return the exit code."""
        table = Table(title=self.title)
        for column in self.columns:
            table.add_column(column)
        for row in self.rows:
            table.add_row(*(_shown(row.get(column, "")) for column in self.columns))
        self._console.print(table)
        for note in self.notes:
            self._console.print(note, markup=False, highlight=False)
        for each in self.checks:
            verdict = "[green]reached[/]" if each["ok"] else "[red]missed[/]"
            self._console.print(
                f"{verdict}  {each['name']}: {_shown(each['value'])} (must be {each['limit']})"
            )
        self.save(json_path)
        return int(check and not all(each["ok"] for each in self.checks))

    def save(self, json_path: str | Path | None) -> None:
        """Write what there is so far: a long run that is cut short has not run for nothing."""
        if json_path is not None:
            Path(json_path).write_text(json.dumps(self.to_data(), indent=1) + "\n")

    def to_data(self) -> dict[str, Any]:
        """Everything, JSON-able, with the machine it was measured on."""
        return {
            "title": self.title,
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
                "threads": torch.get_num_threads(),
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
            "rows": self.rows,
            "notes": self.notes,
            "checks": self.checks,
        }


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
