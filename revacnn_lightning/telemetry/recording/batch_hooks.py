"""Hooks on the calls of chosen modules that exist during a batch only, and in no copy of the model.

A forward hook sends each call of its module through a slow path of torch, which costs several times
what the hook does. (A hook on all modules of the process costs that in each of them.) Torch lets a
module be called in another way, for ``nn.Module.compile``: an attribute of the module, which its
copies and pickles do not contain. During a batch, the chosen modules are called by way of an
`ModuleCallWithHook` there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

__all__ = ["BatchHooks", "Hook", "Prepared"]

Hook = Callable[[nn.Module, Any, Any], None]

_ATTRIBUTE = "_compiled_call_impl"


class ModuleCallWithHook:
    """Calls a module, then a hook. Copies and pickles of it are None: the module as it was.

    Args:
        module: called as usual, with the hooks that it has.

    Attributes:
        hook: receives the module, its positional arguments and what it has returned.
    """

    __slots__ = ("_call", "_module", "hook")

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._call: Callable[..., Any] = module._call_impl
        self.hook: Hook = _ignore

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self._call(*args, **kwargs)
        self.hook(self._module, args, output)
        return output

    def __reduce__(self) -> Any:
        return type(None), ()


Prepared = list[tuple[dict[str, Any], ModuleCallWithHook, Hook]]


class BatchHooks:
    """Hooks on the calls of chosen modules, enabled and disabled with each batch."""

    def __init__(self) -> None:
        self._calls: dict[nn.Module, ModuleCallWithHook] = {}
        self._hooks: Prepared = []

    @property
    def is_installed(self) -> bool:
        """Whether any module is chosen."""
        return bool(self._hooks)

    def install(self, hooks: dict[nn.Module, Hook]) -> bool:
        """Choose these modules and no others. Their hooks run from `enable` to `disable`.

        Returns:
            False, with no module chosen, if one of them has forward hooks of somebody else, which
            may replace what it returns, or is called in a way of its own.
        """
        self.uninstall()
        if not all(map(_is_called_as_usual, hooks)):
            return False
        self._calls = {module: ModuleCallWithHook(module) for module in hooks}
        self._hooks = self.prepare(hooks)
        return True

    def prepare(self, hooks: Mapping[nn.Module, Hook]) -> Prepared:
        """Return these hooks of chosen modules, for `enable`."""
        return [(vars(module), self._calls[module], hook) for module, hook in hooks.items()]

    def hook_replacer(self, module: nn.Module) -> Callable[[Hook], None]:
        """Return a function that replaces the hook of a chosen module until the next `enable`."""
        return functools.partial(setattr, self._calls[module], "hook")

    def enable(self, prepared: Prepared | None = None) -> None:
        """Add the hooks, at the start of a batch: those of `install`, or others."""
        for attributes, call, hook in self._hooks if prepared is None else prepared:
            call.hook = hook
            attributes[_ATTRIBUTE] = call

    def disable(self) -> None:
        """Remove the hooks, at the end of a batch. May be called repeatedly."""
        for attributes, call, _ in self._hooks:
            found = attributes.pop(_ATTRIBUTE, None)
            if found is not None and found is not call:
                attributes[_ATTRIBUTE] = found  # the module was compiled within the batch

    def uninstall(self) -> None:
        """Choose no module."""
        self.disable()
        self._hooks, self._calls = [], {}


def _ignore(module: nn.Module, args: Any, output: Any) -> None:
    pass


def _is_called_as_usual(module: nn.Module) -> bool:
    """Return whether an attribute of the module decides how it is called, and nobody has set it."""
    return (
        not module._forward_hooks
        and type(module).__call__ is nn.Module.__call__
        and getattr(module, "_compiled_call_impl", module) is None
    )
