"""The one hub of this server process, and the loop that drives it."""

from __future__ import annotations

import argparse
from pathlib import Path

from .hub import Hub
from .reading import Reading

__all__ = ["hub", "start", "stop"]

_hub: Hub | None = None
_reading: Reading | None = None


def hub() -> Hub:
    """The hub; made on first use where no server has started one (tests, scripts)."""
    global _hub
    if _hub is None:
        _hub = Hub()
    return _hub


def start(arguments: list[str]) -> None:
    """Begin to follow a run; ``--connect FILE`` names its connection file."""
    global _hub, _reading
    parser = argparse.ArgumentParser(prog="revacnn viewer", description=__doc__)
    parser.add_argument("--connect", type=Path, help="connection file of the run to show")
    _hub = Hub(parser.parse_args(arguments).connect)
    _hub.opened.start()
    _reading = Reading(_hub)


def stop() -> None:
    """Detach from the run."""
    global _hub, _reading
    if _reading is not None:
        _reading.close()
        _reading = None
    if _hub is not None:
        _hub.close()
        _hub = None
