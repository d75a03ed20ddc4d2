"""The runs of this server process, and the event-loop reader that drives them."""

from __future__ import annotations

import argparse
from pathlib import Path

from .recordings import Recordings
from .registry import RunRegistry
from .socket_reader import RunMessageReceiver

__all__ = ["parse_options", "run_registry", "start_following_runs", "stop_following_runs"]

_runs: RunRegistry | None = None
_reader: RunMessageReceiver | None = None


def run_registry() -> RunRegistry:
    """Return the registry of the runs of this server.

    Where no server has started it, as in tests, it is created on first use.
    """
    global _runs
    if _runs is None:
        _runs = RunRegistry()
    return _runs


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the app: those of ``bokeh serve viewer --args ...``."""
    parser = argparse.ArgumentParser(
        prog="revacnn viewer", description="Show running trainings in the browser."
    )
    parser.add_argument("--connect", type=Path, help="connection file of the run to show")
    parser.add_argument("--replay", type=Path, nargs="+", help="recordings to show")
    parser.add_argument("--speed", type=float, help="of the replay; 1 for the recorded pace")
    parser.add_argument(
        "--access",
        choices=("token", "server", "gate"),
        default="token",
        help="who may open the page: whoever has the token that is printed (default); whoever an "
        "--auth-module admits (server); whoever `revacnn view` admits, which sets this (gate)",
    )
    return parser.parse_args(arguments)


def start_following_runs(options: argparse.Namespace) -> None:
    """Start following runs.

    The option ``connect`` limits them to the run of a connection file, ``replay`` shows recordings
    instead.
    """
    global _runs, _reader
    recordings = Recordings(options.replay, options.speed) if options.replay else None
    _runs = RunRegistry(options.connect, recordings)
    _runs.start()
    _reader = RunMessageReceiver(_runs)


def stop_following_runs() -> None:
    """Detach from every run."""
    global _runs, _reader
    if _reader is not None:
        _reader.close()
        _reader = None
    if _runs is not None:
        _runs.close()
        _runs = None
