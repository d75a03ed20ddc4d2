"""The mode, training or evaluation, of each module of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["modes_without_noise", "temporary_modes", "training_modes_of"]

DROPOUTS = (
    nn.AlphaDropout,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.FeatureAlphaDropout,
)


def training_modes_of(model: nn.Module) -> dict[str, bool]:
    """Return for each module, by name, whether it is in training mode."""
    return {name: module.training for name, module in model.named_modules()}


def modes_without_noise(model: nn.Module) -> dict[str, bool]:
    """Return the modes of all modules, with evaluation mode for batch norms and dropout."""
    modules = model.named_modules()
    return {
        name: module.training and not isinstance(module, (_NormBase, *DROPOUTS))
        for name, module in modules
    }


@contextmanager
def temporary_modes(model: nn.Module, modes: Mapping[str, bool]) -> Iterator[None]:
    """Return a context in which modules have these modes; unnamed modules keep theirs."""
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
