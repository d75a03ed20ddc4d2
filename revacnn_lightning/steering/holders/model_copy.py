"""What all kinds of copies of the model have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["CopyRestriction", "ModelPartCopy"]


@dataclass(eq=False)
class ModelPartCopy:
    """Something that holds copies of tensors of the model.

    Attributes:
        holder: its name in messages.
        root: the module that the names of the copies are relative to.
        doubt: why it may be no copy after all, and what to do; "" if it certainly is one.
        is_ambiguous: whether it may be a copy of another part of the model instead.
        is_registered: whether the copy is a registered module of the model.
        has_values: whether the copies hold values of the model's tensors, not something else about
            each of them, such as its importance.
    """

    holder: str
    root: nn.Module = field(repr=False)
    doubt: str = field(default="", kw_only=True)
    is_ambiguous: bool = field(default=False, kw_only=True)
    is_registered: bool = field(default=False, kw_only=True)
    has_values: bool = field(default=True, kw_only=True)

    def name_in_copy(self, name: str) -> str | None:
        """Return the name in ``root`` of what ``name`` is in the model; None if it has no copy."""
        raise NotImplementedError

    def follows_tensor(self, name: str) -> bool:
        """Return whether a change of this tensor of the model concerns the copy."""
        return self.name_in_copy(name) is not None

    def refusal(self, plan: EditPlan) -> str:
        """Return why a plan cannot be performed on the copy, and what to do; "" if it can."""
        return ""

    def concerns_layer_at(self, host_name: str) -> bool:
        """Return whether a layer that is inserted after a module, or replaces it, has a copy."""
        raise NotImplementedError


@dataclass(frozen=True)
class CopyRestriction:
    """A part of the model that cannot be edited because of something that holds a copy of it.

    With ``only_removal``, it can be edited, but not removed.
    """

    origin: str
    reason: str
    only_removal: bool = False
