"""The command ``revacnn export``, and the options of ``revacnn view`` for recordings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from revacnn_lightning.errors import RevacnnError

__all__ = ["add_export_command", "add_replay_options", "format_replay_options"]


def add_export_command(commands: Any) -> None:
    """Add the command to the subparsers of ``revacnn``."""
    parser = commands.add_parser(
        "export",
        help="export a recording as tables",
        description="Export a recording as tables: batches, layers, filters, edits.",
    )
    parser.add_argument("recording", type=Path, metavar="FILE", help="such as run.mcap")
    formats = parser.add_mutually_exclusive_group(required=True)
    formats.add_argument("--csv", type=Path, metavar="DIR", help="write CSV files to this folder")
    formats.add_argument(
        "--parquet", type=Path, metavar="DIR", help="write Parquet files to this folder"
    )
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from revacnn_lightning.recording.export import export_recording
    from revacnn_lightning.recording.table_writers import CsvTableWriter, ParquetTableWriter

    folder = options.csv or options.parquet
    open_table = CsvTableWriter if options.csv else ParquetTableWriter
    try:
        rows = export_recording(options.recording, folder, open_table)
    except OSError as error:
        raise RevacnnError(f"cannot write to {folder}: {error}; choose another folder") from error
    for name, count in rows.items():
        print(f"{folder / name}{'.csv' if options.csv else '.parquet'}: {count:,} rows")
    return 0


def add_replay_options(view: argparse.ArgumentParser) -> None:
    """Add the options for recordings to the parser of ``revacnn view``."""
    view.add_argument(
        "--replay", type=Path, nargs="+", metavar="FILE", help="show recordings instead of runs"
    )
    view.add_argument(
        "--speed",
        type=_speed,
        metavar="X",
        help="play a recording at X times its pace (default: load it, and use the slider)",
    )


def format_replay_options(options: argparse.Namespace) -> list[str]:
    """Return the viewer's command-line arguments for these options, with absolute paths.

    Raises:
        RevacnnError: a recording cannot be read.
    """
    if not options.replay:
        return []
    from revacnn_lightning.recording.recording_reader import RecordingReader

    for path in options.replay:
        RecordingReader(path).close()
    files = [str(path.expanduser().resolve()) for path in options.replay]
    speed = [] if options.speed is None else ["--speed", str(options.speed)]
    return ["--replay", *files, *speed]


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"the speed must be positive and finite, not {text}")
    return speed
