"""The mark of an edited model: an empty slot in its module tree.

Copies and pickles of the model keep it without needing this package, and a marked model accepts the
key `MARK_KEY`, which checkpoints add to its weights. Any other model reports that key when it loads
the weights, so that the error says what to do.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

__all__ = [
    "MARK",
    "MARK_KEY",
    "is_marked_edited",
    "mark_state_dict",
    "unmark_state_dict",
    "update_edit_mark",
]

MARK = "edited_by_ReVACNN"
MARK_KEY = f"{MARK}.load_with.revacnn_lightning.load_edited"
# Of the base classes of a model, whose code may meet an empty slot.
PACKAGES = {"torch", "lightning", "lightning_fabric", "pytorch_lightning", "builtins"}


def is_marked_edited(model: nn.Module) -> bool:
    """Return whether a model, or the model that it is a copy of, was edited."""
    return MARK in model._modules


def update_edit_mark(model: nn.Module, *, is_edited: bool) -> None:
    """Mark an edited model; remove the mark from one whose edits were all undone."""
    if is_edited and not is_marked_edited(model) and not _reads_its_table(type(model)):
        model.register_module(MARK, None)
    elif not is_edited and is_marked_edited(model):
        delattr(model, MARK)


def _reads_its_table(kind: type[nn.Module]) -> bool:
    """Return whether the code of a class runs whatever it finds in the table of its modules.

    It would run the empty slot, too. Containers do, and classes that read ``_modules``.
    """
    if issubclass(kind, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return True
    own = [each for each in kind.__mro__ if each.__module__.partition(".")[0] not in PACKAGES]
    functions = [value for each in own for value in vars(each).values()]
    return any(
        "_modules" in value.__code__.co_names
        for value in functions
        if isinstance(value, types.FunctionType)
    )


def mark_state_dict(model: nn.Module, state_dict: Any) -> None:
    """Add the key that other models report, if the model of this state dict is marked."""
    if is_marked_edited(model) and isinstance(state_dict, dict):
        state_dict[MARK_KEY] = torch.empty(0)


def unmark_state_dict(state_dict: Any) -> None:
    """Remove the key that `mark_state_dict` has added, if there is one."""
    if isinstance(state_dict, dict):
        state_dict.pop(MARK_KEY, None)
