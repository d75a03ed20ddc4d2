"""The hooks that the user has registered for all modules, such as those of a counter of calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules import module as torch_module

__all__ = ["global_hooks_suspended"]


@contextmanager
def global_hooks_suspended() -> Iterator[None]:
    """Run no hook inside that was registered for all modules before. Others can be registered.

    In a release of torch without these tables, the hooks run.
    """
    # torch can register and remove such hooks in public, but not suspend them.
    tables: list[dict[int, Any]] = [
        getattr(torch_module, "_global_forward_pre_hooks", {}),
        getattr(torch_module, "_global_forward_hooks", {}),
        getattr(torch_module, "_global_forward_hooks_always_called", {}),
        getattr(torch_module, "_global_forward_hooks_with_kwargs", {}),
        getattr(torch_module, "_global_backward_pre_hooks", {}),
        getattr(torch_module, "_global_backward_hooks", {}),
    ]
    before = [dict(table) for table in tables]
    for table in tables:
        table.clear()
    try:
        yield
    finally:
        for table, hooks in zip(tables, before, strict=True):
            later = dict(table)
            table.clear()
            table.update({**hooks, **later})
