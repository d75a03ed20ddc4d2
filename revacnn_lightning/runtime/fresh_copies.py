"""Copies and pickles of the callback have the same settings, and no run.

Trainers are copied during a run more often than one thinks: a data loader that starts its workers
with "spawn" pickles its dataset, which may hold the data module, the trainer and its callbacks.
Sockets, hooks and files belong to one run and to one process.
"""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.run_options import RunOptions

__all__ = ["FreshCopyMixin"]

NOT_PICKLED = (
    "the function in ReVACNN({argument}=...) could not be pickled, so this copy of the callback "
    "does not have it; define it with def at the top level of a module"
)

T = TypeVar("T", bound="FreshCopyMixin")


class FreshCopyMixin:
    """Mixin of a callback whose copies and pickles have its settings, but not the state of its run.

    Attributes:
        RUN_STATE: the names of the attributes that copies do not have.
    """

    RUN_STATE: ClassVar[tuple[str, ...]] = ()
    _options: RunOptions

    def _begin_without_run(self) -> None:
        """Set the attributes of `RUN_STATE` as in a new object."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        options = self._options
        functions = options.with_functions(
            picklable_or_replacement(options.forward, raise_forward_not_pickled),
            picklable_or_replacement(options.images, raise_images_not_pickled),
            picklable_or_replacement(options.alert, raise_alert_not_pickled),
        )
        return {**self._settings(), "_options": functions}

    def __setstate__(self, settings: dict[str, Any]) -> None:
        vars(self).update(settings)
        self._begin_without_run()

    def __copy__(self: T) -> T:
        return self._with_settings(self._settings())

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        return self._with_settings(copy.deepcopy(self._settings(), memo))

    def _settings(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self.RUN_STATE}

    def _with_settings(self: T, settings: dict[str, Any]) -> T:
        fresh = type(self).__new__(type(self))
        fresh.__setstate__(settings)
        return fresh


def picklable_or_replacement(user_function: Any, replacement: Callable[..., Any]) -> Any:
    """Return the user's function if it can be pickled, else the replacement.

    A lambda in the callback must not stop a training whose workers are pickled.
    """
    function: Any = user_function
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.FunctionType) and not _is_found_by_name(function):
        return replacement
    return user_function


def _is_found_by_name(function: types.FunctionType) -> bool:
    """Return whether a function is what its name refers to, as pickling requires."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def raise_forward_not_pickled(module: Any, batch: Any) -> Any:
    """Refuse to run: stands in for the option ``forward``, which could not be pickled.

    Raises:
        EditRefusedError: always.
    """
    raise EditRefusedError(NOT_PICKLED.format(argument="forward"))


def raise_images_not_pickled(batch: Any) -> Any:
    """Refuse to run: stands in for the option ``images``, which could not be pickled.

    Raises:
        EditRefusedError: always.
    """
    raise EditRefusedError(NOT_PICKLED.format(argument="images"))


def raise_alert_not_pickled(alert: Any) -> None:
    """Refuse to run: stands in for the option ``alert``, which could not be pickled.

    Raises:
        EditRefusedError: always.
    """
    raise EditRefusedError(NOT_PICKLED.format(argument="alert"))
