"""Plain tensors that are copies of tensors of the model, single or in a dict or list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.steering.holders.model_copy import ModelPartCopy
from revacnn_lightning.steering.holders.module_matching import is_inside_module
from revacnn_lightning.steering.holders.tensor_listings import TensorListing
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["TensorCopy", "make_module_tree"]


@dataclass(eq=False)
class TensorCopy(ModelPartCopy):
    """Tensors that are copies of tensors of the model.

    Attributes:
        listing: the tensors of the model that it copies, in the order of the container.
        container: the dict or list that holds the copies; None for a single tensor.
        keys: the keys of the dict, in its order.
        aliases: the names of those copies that share the memory of the model's tensor.
        foreign: the names of copies that are edited with the module, or the other copy, that they
            belong to.
    """

    listing: TensorListing = field(default=TensorListing("", "", ()), repr=False)
    container: Any = field(default=None, repr=False)
    keys: tuple[Any, ...] = ()
    aliases: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()

    def name_in_copy(self, name: str) -> str | None:
        """Return the name itself if it is that of a tensor with a copy."""
        is_own = name in self.listing.full_names and name not in self.aliases | self.foreign
        return name if is_own else None

    def concerns_layer_at(self, host_name: str) -> bool:
        """Return whether parameters of this layer, or of one after it, are in the container."""
        if self.container is not None and is_inside_module(host_name, self.listing.scope):
            return True
        return any(is_inside_module(name, host_name) for name in self.listing.full_names)

    def follows_tensor(self, name: str) -> bool:
        """Return whether a change of this tensor of the model concerns a copy or its memory."""
        return name in self.listing.full_names and name not in self.foreign

    def refusal(self, plan: EditPlan) -> str:
        """Return why a plan cannot be performed on the copies; "" if it can."""
        if self.container is None or not any(self.concerns_layer_at(e.host) for e in plan.layers):
            return ""
        if isinstance(self.container, tuple):
            return (
                f"{self.holder} is a tuple, which cannot get or lose the tensors of a layer; keep "
                "the copies in a list"
            )
        if self.listing.kind == "chosen" and any(e.action == "insert" for e in plan.layers):
            return (
                f"{self.holder} holds copies of some parameters only; whether it needs those of a "
                "new layer, too, is unknown; keep copies of all parameters of a module"
            )
        return ""

    def update(self, names: Sequence[str], tensors: Sequence[Tensor], keys: Sequence[Any]) -> None:
        """Take what the container holds now."""
        start = len(self.listing.scope) + 1 if self.listing.scope else 0
        self.listing = replace(self.listing, names=tuple(name[start:] for name in names))
        self.root = make_module_tree(dict(zip(names, tensors, strict=True)))
        self.keys = tuple(keys)

    def key_of(self, name: str, tensor: Tensor) -> Any:
        """Return the key of a tensor of the model that the container may not have yet."""
        if isinstance(self.keys[0], Tensor):
            return tensor
        if isinstance(self.keys[0], int):
            return id(tensor)
        start = str(self.keys[0]).removesuffix(self.listing.names[0])
        return start + name[len(self.listing.scope) :].lstrip(".")

    def tensor(self, name: str) -> Tensor:
        """Return the copy of a tensor of the model."""
        path, _, attribute = name.rpartition(".")
        tensor = getattr(self.root.get_submodule(path), attribute)
        assert isinstance(tensor, Tensor)
        return tensor


def make_module_tree(tensors: dict[str, Tensor]) -> nn.Module:
    """Return a module in which these tensors have these dotted names, as plain attributes."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, attribute = name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]  # type: ignore[assignment]
        object.__setattr__(owner, attribute, tensor)
    return root
