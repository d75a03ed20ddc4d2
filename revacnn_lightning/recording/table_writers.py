"""Writes tables as CSV or Parquet files, some rows at a time."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from revacnn_lightning.errors import MissingPackageError

__all__ = ["Columns", "CsvTableWriter", "OpenTable", "ParquetTableWriter", "TableWriter"]

Columns = Mapping[str, Any]  # equally long sequences by name


class TableWriter(Protocol):
    """Writes the rows of one table."""

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows. The columns are the same in each call."""

    def close(self) -> None:
        """Complete the file."""


OpenTable = Callable[[Path, str], TableWriter]  # folder, name of the table


class CsvTableWriter:
    """A CSV file. What is not known, or not measured, is empty."""

    def __init__(self, folder: Path, name: str) -> None:
        self._stream = (folder / f"{name}.csv").open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._stream)
        self._has_header = False

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        if not self._has_header:
            self._writer.writerow(columns)
            self._has_header = True
        self._writer.writerows(zip(*(_texts(column) for column in columns.values()), strict=True))

    def close(self) -> None:
        self._stream.close()


class ParquetTableWriter:
    """A Parquet file.

    Raises:
        MissingPackageError: the package pyarrow is not installed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise MissingPackageError(
                "Parquet files need the package pyarrow: pip install pyarrow; or use --csv"
            ) from error
        self._arrow = pyarrow
        self._path = folder / f"{name}.parquet"
        self._writer: Any = None

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        table = self._arrow.table({name: _plain(column) for name, column in columns.items()})
        if self._writer is None:
            self._writer = self._arrow.parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _texts(column: np.ndarray) -> Sequence[object]:
    """Return the values for a CSV file, with as many digits as their type has."""
    if column.dtype.kind != "f":
        return [_escaped(value) if isinstance(value, str) else value for value in column.tolist()]
    short = column.astype(str) if column.dtype.itemsize < 8 else np.array(column.tolist(), object)
    return ["" if missing else text for text, missing in zip(short, np.isnan(column), strict=True)]


def _escaped(text: str) -> str:
    """Return a text that spreadsheets do not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _plain(column: np.ndarray) -> Any:
    return column.tolist() if column.dtype.kind in "OU" else column
