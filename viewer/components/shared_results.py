"""Results that are the same in all tabs that show a run: each is computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from ..runs.run_state import RunState

__all__ = ["compute_once"]

KEPT = 16  # results of a run: those of a batch, for tabs of several sizes

T = TypeVar("T")

_results: WeakKeyDictionary[RunState, dict[Hashable, Any]] = WeakKeyDictionary()


def compute_once(state: RunState, key: Hashable, compute: Callable[[], T]) -> T:
    """Return the result of ``compute``, or that of an earlier call with the same key.

    All callers get the same object and must not change it.

    Args:
        state: the state of the run. Its results are dropped with it.
        key: everything that the result depends on, besides ``state``.
        compute: computes the result, without arguments.
    """
    results = _results.setdefault(state, {})
    if key not in results:
        results[key] = compute()
        while len(results) > KEPT:
            del results[next(iter(results))]
    found: T = results[key]
    return found
