"""Python's garbage collector during an edit."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused_garbage_collection"]


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Disable the collector: a trace or an edit creates many objects, but hardly any cycles.

    The collector would search all objects of the process several times, which costs a fifth.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
