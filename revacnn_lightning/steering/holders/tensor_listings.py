"""The ways in which user code lists a model's tensors, by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["TensorListing", "TensorListings"]

Named = dict[str, Tensor]


def _state(module: nn.Module) -> Named:
    """Return the tensors of ``state_dict``, in its order, without running hooks of the user."""
    found: Named = {}
    for path, child in module.named_modules():
        owned = [*child._parameters.items()]
        hidden = child._non_persistent_buffers_set
        owned += [item for item in child._buffers.items() if item[0] not in hidden]
        for name, tensor in owned:
            if tensor is not None:
                found[f"{path}.{name}" if path else name] = tensor
    return found


_LISTINGS: dict[str, Callable[[nn.Module], Named]] = {
    "parameters": lambda module: dict(module.named_parameters()),
    "trained": lambda module: {n: p for n, p in module.named_parameters() if p.requires_grad},
    "state": _state,
}


@dataclass(frozen=True)
class TensorListing:
    """The names of a module's parameters, of those that require a gradient, or of its whole state.

    Attributes:
        scope: the name of the module.
        kind: a key of ``_LISTINGS``.
        names: the names of the tensors in the module, in its order.
    """

    scope: str
    kind: str
    names: tuple[str, ...]

    @property
    def full_names(self) -> list[str]:
        """The names of the tensors in the model."""
        return [f"{self.scope}.{name}" if self.scope else name for name in self.names]

    def now(self, model: nn.Module) -> TensorListing:
        """Return the same listing of the model in its present structure."""
        module = model.get_submodule(self.scope)
        return TensorListing(self.scope, self.kind, tuple(_LISTINGS[self.kind](module)))


class TensorListings:
    """All listings of the tensors of a model.

    Attributes:
        tensors: every parameter and buffer of the model by name.
        by_scope: module name -> its listings, the whole state last.
        by_shapes: shapes -> the listings whose tensors have these shapes, in this order.
    """

    def __init__(self, model: nn.Module, skipped_modules: list[str]) -> None:
        """Collect the listings of every module except those inside ``skipped_modules``."""
        self.tensors: Named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.by_scope: dict[str, list[TensorListing]] = defaultdict(list)
        self.by_shapes: dict[tuple[tuple[int, ...], ...], list[TensorListing]] = defaultdict(list)
        for scope, module in model.named_modules():
            if any(scope == name or scope.startswith(f"{name}.") for name in skipped_modules):
                continue
            for kind in ("parameters", "trained", "state"):
                named = _LISTINGS[kind](module)
                if named:
                    listing = TensorListing(scope, kind, tuple(named))
                    self.by_scope[scope].append(listing)
                    self.by_shapes[tuple(tuple(t.shape) for t in named.values())].append(listing)
