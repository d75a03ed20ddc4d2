"""Forward hooks on chosen modules, there during a batch only, and in no copy of the model.

A hook on all modules of the process makes every call of every module take Python's slow way, which
costs more than what we do with the few calls that matter. Hooks of single modules cost those only.
But they live in the module, whose copies and pickles would take them along: so the modules chosen
get an (empty) table of hooks whose copies and pickles are ordinary tables without ours.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["BatchHooks", "Hook"]

Hook = Callable[[nn.Module, Any, Any], None]

_OURS = "revacnn"  # the key of our hook; others' are integers


class _Table(OrderedDict[Any, Any]):
    """A module's forward hooks. Copies and pickles are of an ordinary type, and without ours."""

    def _others(self) -> OrderedDict[Any, Any]:
        return OrderedDict((key, hook) for key, hook in self.items() if key != _OURS)

    def copy(self) -> Any:
        return self._others()

    def __copy__(self) -> Any:
        return self._others()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._others(), memo)

    def __reduce__(self) -> Any:
        return self._others().__reduce__()


class BatchHooks:
    """The modules that are listened to, each with what is to be called after its forward."""

    def __init__(self) -> None:
        self._hooks: list[tuple[_Table, Hook]] = []
        self._replaced: list[tuple[nn.Module, Any, _Table]] = []

    @property
    def are_set(self) -> bool:
        """Whether any module is listened to."""
        return bool(self._hooks)

    def set(self, hooks: dict[nn.Module, Hook]) -> bool:
        """Listen to these modules, from `open` to `close`, and to no others.

        Returns:
            False where one of them has forward hooks of somebody else: their removal would miss
            a table put in the place of theirs. Then nothing is listened to.
        """
        self.clear()
        if any(module._forward_hooks for module in hooks):
            return False
        for module, hook in hooks.items():
            table = _Table()
            self._replaced.append((module, module._forward_hooks, table))
            module._forward_hooks = table
            self._hooks.append((table, hook))
        return True

    def open(self) -> None:
        """The batch begins."""
        for table, hook in self._hooks:
            table[_OURS] = hook

    def close(self) -> None:
        """The batch is over. May be called again."""
        for table, _ in self._hooks:
            table.pop(_OURS, None)

    def clear(self) -> None:
        """Leave the modules as they were; hooks that others have added meanwhile stay."""
        self.close()
        for module, original, table in self._replaced:
            if module._forward_hooks is table and not table:
                module._forward_hooks = original
        self._hooks, self._replaced = [], []
