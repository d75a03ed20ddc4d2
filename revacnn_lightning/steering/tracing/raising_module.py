"""Finds the module of a model whose code raised an exception."""

from __future__ import annotations

import traceback

from torch import nn

__all__ = ["raising_module_name"]


def raising_module_name(model: nn.Module, error: BaseException) -> str:
    """Return the name of the innermost module in whose method ``error`` was raised.

    Returns:
        A name as in ``model.named_modules()``; ``""`` if no part of the model raised it.
    """
    names = {id(module): name for name, module in model.named_modules()}
    found = ""
    current: BaseException | None = error
    while current is not None:  # an error of ours was raised from the user's
        for frame, _ in traceback.walk_tb(current.__traceback__):
            found = names.get(id(frame.f_locals.get("self")), "") or found
        if found:
            return found
        current = current.__cause__
    return found
