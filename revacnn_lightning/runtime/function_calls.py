"""Observes calls of torch functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["FunctionCallMode"]


class FunctionCallMode(TorchFunctionMode):
    """Passes every torch function that is called while it is active to ``call``.

    Args:
        call: (function, args, kwargs) -> what the function returns.
    """

    def __init__(self, call: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        self._call = call

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self._call(func, args, kwargs or {})

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Return a context without the mode, unless a mode of the user was entered after it.

        Under any mode, some modules take another code path than without one.
        """
        if torch.overrides._get_current_function_mode() is not self:
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()
