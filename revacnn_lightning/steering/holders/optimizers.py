"""Finds the optimizers that train a model now: given ones, unwrapped, and those that objects hold.

Lightning and Fabric wrap optimizers; Lookahead and similar ones contain another; with manual
optimization a module may hold its own, which the trainer does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.steering.holders.object_walk import CopyHolder, walk_held_torch_objects
from revacnn_lightning.telemetry.module_tree import list_named_parameters

__all__ = ["all_optimizers", "unwrapped_optimizers"]

WRAPPERS = ("pytorch_lightning.", "lightning.", "lightning_fabric.")


def unwrapped_optimizers(optimizers: Iterable[Any]) -> list[Optimizer]:
    """Return the optimizers inside the wrappers of Lightning and Fabric, in the same order."""
    found = []
    for optimizer in optimizers:
        # Both wrappers imitate the class of the optimizer, so `isinstance` does not identify them.
        while type(optimizer).__module__.startswith(WRAPPERS) and hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        found.append(optimizer)
    return found


def all_optimizers(
    model: nn.Module, optimizers: Iterable[Any], holders: Sequence[CopyHolder] = ()
) -> list[Optimizer]:
    """Return the given optimizers, then the others that hold parameters of the model.

    These are held by a given optimizer, by the model's attributes or by a holder.
    """
    found = unwrapped_optimizers(optimizers)
    parameters = {id(p) for _, p in list_named_parameters(model)}
    objects: list[tuple[str, object]] = [("optimizer", each) for each in found]
    objects += [("model", model), *((holder.name, holder.value) for holder in holders)]
    for name, value in objects:
        for each in walk_held_torch_objects(name, value):
            if isinstance(each.value, Optimizer):
                (optimizer,) = unwrapped_optimizers([each.value])
                if not _is_in(optimizer, found) and _trains_any(optimizer, parameters):
                    found.append(optimizer)
    return found


def _is_in(optimizer: Optimizer, optimizers: Sequence[Optimizer]) -> bool:
    return any(each is optimizer for each in optimizers)


def _trains_any(optimizer: Optimizer, parameters: set[int]) -> bool:
    groups = getattr(optimizer, "param_groups", [])
    return any(id(p) in parameters for group in groups for p in group["params"])
