"""Which optimizer states can be resized, and for which optimizers that is only approximate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["inexact_resize_notes", "parameter_positions", "why_state_not_resizable"]

# The optimizers whose state cannot be resized exactly, and why. Keys are class names, so that
# older versions of torch need not have the class.
INEXACT = {
    "Adafactor": "Adafactor couples all entries of a tensor (row and column means): the next "
    "updates of the remaining filters differ from those of an unedited run",
    "Muon": "Muon's step size depends on the shape of a matrix: the next updates of the remaining "
    "filters differ from those of an unedited run",
    "LBFGS": "LBFGS couples all parameters: the next updates of the remaining filters agree with "
    "those of an unedited run up to rounding only",
}


def inexact_resize_notes(
    optimizers: Sequence[Optimizer], parameters: Iterable[Tensor]
) -> list[str]:
    """Return a note for each kind of optimizer that cannot resize these parameters exactly."""
    resized = list(parameters)
    kinds = {type(o).__name__ for o in optimizers for p in resized if _trains(o, p)}
    return [INEXACT[kind] for kind in sorted(kinds) if kind in INEXACT]


def _trains(optimizer: Optimizer, parameter: Tensor) -> bool:
    return any(p is parameter for group in optimizer.param_groups for p in group["params"])


def why_state_not_resizable(optimizers: Sequence[Optimizer], named: dict[str, Tensor]) -> str:
    """Return why the state of one of these parameters cannot be resized; "" if all can."""
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.LBFGS):
            continue
        for name, parameter in named.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                if not _is_resizable(value, parameter):
                    kind = type(optimizer).__name__
                    return (
                        f"the state {key!r} that {kind} keeps for {name} cannot be resized: its "
                        "shape is not the parameter's"
                    )
    return ""


def _is_resizable(value: Any, parameter: Tensor) -> bool:
    """Return whether a state value has the parameter's shape, some sizes 1, or is a scalar."""
    if isinstance(value, Tensor) and value.numel() > 1:
        return value.ndim == parameter.ndim and all(
            a in (b, 1) for a, b in zip(value.shape, parameter.shape, strict=True)
        )
    return not isinstance(value, (list, tuple, dict)) or not any(
        isinstance(each, Tensor) for each in value
    )


def parameter_positions(
    module: nn.Module, prefix: str, optimizers: Sequence[Optimizer]
) -> list[tuple[str, int, int, int]]:
    """Return (name, optimizer, group, position) of each of a module's trained parameters.

    ``prefix`` is the module's name. The order is that of the positions.
    """
    positions = []
    for name, parameter in module.named_parameters(prefix):
        for i, optimizer in enumerate(optimizers):
            for j, group in enumerate(optimizer.param_groups):
                for k, each in enumerate(group["params"]):
                    if each is parameter:
                        positions.append((name, i, j, k))
    return sorted(positions, key=lambda place: place[1:])
