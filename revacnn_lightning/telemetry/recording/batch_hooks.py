"""Forward hooks that exist on chosen modules during a batch only, and in no copy of the model.

A hook on all modules of the process sends every call of every module through Python's slow path,
which costs more than the few hooks that matter. Hooks on single modules cost only their own calls,
but they are stored in the module, whose copies and pickles would contain them. Therefore the chosen
modules get a hook table of a type whose copies and pickles are plain tables without our hook.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

__all__ = ["BatchHooks", "Hook", "Prepared"]

Hook = Callable[[nn.Module, Any, Any], None]

_KEY = "revacnn"  # of our hook; torch's own keys are integers


class _HookTable(OrderedDict[Any, Any]):
    """A module's table of forward hooks. Copies and pickles are plain and without our hook."""

    def _foreign_hooks(self) -> OrderedDict[Any, Any]:
        return OrderedDict((key, hook) for key, hook in self.items() if key != _KEY)

    def copy(self) -> Any:
        return self._foreign_hooks()

    def __copy__(self) -> Any:
        return self._foreign_hooks()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._foreign_hooks(), memo)

    def __reduce__(self) -> Any:
        return self._foreign_hooks().__reduce__()


Prepared = list[tuple[_HookTable, Hook]]


class BatchHooks:
    """Forward hooks on chosen modules, enabled and disabled with each batch."""

    def __init__(self) -> None:
        self._tables: dict[nn.Module, _HookTable] = {}
        self._hooks: Prepared = []
        self._replaced: list[tuple[nn.Module, Any, _HookTable]] = []

    @property
    def is_installed(self) -> bool:
        """Whether any module is chosen."""
        return bool(self._hooks)

    def install(self, hooks: dict[nn.Module, Hook]) -> bool:
        """Choose these modules and no others. Their hooks run from `enable` to `disable`.

        Returns:
            False, with no module chosen, if one of them has forward hooks of somebody else: a
            handle could no longer remove its hook from a table that we have replaced.
        """
        self.uninstall()
        if any(module._forward_hooks for module in hooks):
            return False
        for module in hooks:
            table = _HookTable()
            self._replaced.append((module, module._forward_hooks, table))
            module._forward_hooks = table
            self._tables[module] = table
        self._hooks = self.prepare(hooks)
        return True

    def prepare(self, hooks: Mapping[nn.Module, Hook]) -> Prepared:
        """Return these hooks of chosen modules, for `enable`."""
        return [(self._tables[module], hook) for module, hook in hooks.items()]

    def replacer(self, module: nn.Module) -> Callable[[Hook], None]:
        """Return a function that replaces the hook of a chosen module until `disable`."""
        return functools.partial(self._tables[module].__setitem__, _KEY)

    def enable(self, prepared: Prepared | None = None) -> None:
        """Add the hooks, at the start of a batch: those of `install`, or others."""
        for table, hook in self._hooks if prepared is None else prepared:
            table[_KEY] = hook

    def disable(self) -> None:
        """Remove the hooks, at the end of a batch. May be called repeatedly."""
        for table, _ in self._hooks:
            if table:
                table.pop(_KEY, None)

    def uninstall(self) -> None:
        """Restore the modules; hooks that others have added meanwhile stay."""
        self.disable()
        for module, original, table in self._replaced:
            if module._forward_hooks is table and not table:
                module._forward_hooks = original
        self._hooks, self._replaced, self._tables = [], [], {}
