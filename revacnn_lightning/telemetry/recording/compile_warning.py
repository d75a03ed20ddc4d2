"""Silences a warning of compiled modules that our hooks would otherwise provoke."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

__all__ = ["CompileWarningFilter"]

# Compiled modules warn when they are called while there is a hook on all modules. Our hooks do
# nothing in compiled regions.
_WARNING = r"Using `torch\.compile\(module\)` when there are global hooks"


class CompileWarningFilter:
    """A warning filter that exists only while a model with compiled modules is observed."""

    def __init__(self) -> None:
        self._filter: Any = None

    @property
    def is_installed(self) -> bool:
        """Whether the model has compiled modules."""
        return self._filter is not None

    def install(self, model: nn.Module) -> None:
        """Add the filter if the model has compiled modules."""
        # The attribute is checked because importing the class would import the compiler.
        is_compiled = any("_orig_mod" in module._modules for module in model.modules())
        if self._filter is None and is_compiled:
            warnings.filterwarnings("ignore", _WARNING, UserWarning)
            self._filter = warnings.filters[0]

    def remove(self) -> None:
        """Remove the filter. May be called repeatedly."""
        if self._filter in warnings.filters:
            warnings.filters.remove(self._filter)  # type: ignore[attr-defined]
        self._filter = None
