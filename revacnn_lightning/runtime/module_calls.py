"""Replaces ``nn.Module.__call__`` for a while, as torch.fx does, to observe calls of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["module_calls_replaced"]


@contextmanager
def module_calls_replaced(
    call: Callable[[Callable[..., Any], nn.Module, Any, Any], Any] | None,
) -> Iterator[None]:
    """Return a context in which ``call`` runs every module of the process.

    With None, modules run inside as if their calls were not replaced.
    """
    current: Any = nn.Module.__call__
    original = getattr(current, "original", current)

    def replaced(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        assert call is not None
        return call(original, module, args, kwargs)

    replaced.original = original  # type: ignore[attr-defined]
    nn.Module.__call__ = original if call is None else replaced  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = current  # type: ignore[method-assign]
