"""The runs of this server process, and the loop that drives them."""

from __future__ import annotations

import argparse
from pathlib import Path

from .registry import RunRegistry
from .socket_reader import SocketReader

__all__ = ["runs", "start", "stop"]

_runs: RunRegistry | None = None
_reading: SocketReader | None = None


def runs() -> RunRegistry:
    """The runs; made on first use where no server has started them (tests, scripts)."""
    global _runs
    if _runs is None:
        _runs = RunRegistry()
    return _runs


def start(arguments: list[str]) -> None:
    """Begin to look for runs; ``--connect FILE`` names the connection file of the only one."""
    global _runs, _reading
    parser = argparse.ArgumentParser(prog="revacnn viewer", description=__doc__)
    parser.add_argument("--connect", type=Path, help="connection file of the run to show")
    _runs = RunRegistry(parser.parse_args(arguments).connect)
    _runs.start()
    _reading = SocketReader(_runs)


def stop() -> None:
    """Detach from every run."""
    global _runs, _reading
    if _reading is not None:
        _reading.close()
        _reading = None
    if _runs is not None:
        _runs.close()
        _runs = None
