"""The mode, training or evaluation, of each module of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

__all__ = ["modes_of", "modes_set"]


def modes_of(model: nn.Module) -> dict[str, bool]:
    """Return whether each module is in training mode, by its name."""
    return {name: module.training for name, module in model.named_modules()}


@contextmanager
def modes_set(model: nn.Module, modes: Mapping[str, bool]) -> Iterator[None]:
    """Give modules other modes inside; those without a name in ``modes`` keep theirs."""
    changed = [
        (module, module.training)
        for name, module in model.named_modules()
        if modes.get(name, module.training) != module.training
    ]
    for module, mode in changed:
        vars(module)["training"] = not mode
    try:
        yield
    finally:
        for module, mode in changed:
            vars(module)["training"] = mode
