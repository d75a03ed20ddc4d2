"""Everything outside and inside the model that holds copies of its tensors, at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.steering.holders.buffer_copies import find_parameters_copied_to_buffers
from revacnn_lightning.steering.holders.copy_evidence import TrainedParameters, UntrainedChanges
from revacnn_lightning.steering.holders.model_copy import CopyRestriction, ModelPartCopy
from revacnn_lightning.steering.holders.module_copies import CopySearch, ModuleCopy
from revacnn_lightning.steering.holders.object_walk import (
    CopyHolder,
    FoundTorchObject,
    walk_held_torch_objects,
)
from revacnn_lightning.steering.holders.tensor_copies import find_tensor_copies

__all__ = ["CopiesAndRestrictions", "CopyTracker"]


@dataclass(frozen=True)
class CopiesAndRestrictions:
    """The copies of a model, and the parts of the model that cannot be edited because of one."""

    copies: list[ModelPartCopy]
    restrictions: list[CopyRestriction]

    @property
    def registered(self) -> list[ModuleCopy]:
        """The copies that are modules of the model itself."""
        return [c for c in self.copies if isinstance(c, ModuleCopy) and c.is_registered]

    @property
    def outside(self) -> list[ModelPartCopy]:
        """The copies that are not registered in the model."""
        return [copy for copy in self.copies if not copy.is_registered]


class CopyTracker:
    """Finds the copies of a model, and remembers between searches which values change.

    Args:
        declared: module -> the module that it is a copy of, or None if it is not a copy.
    """

    def __init__(self, model: nn.Module, declared: Mapping[str, str | None] | None) -> None:
        self._model = model
        self._declared = declared
        self._values = UntrainedChanges()

    def remember(self, optimizers: Sequence[Optimizer]) -> None:
        """Remember the values of untrained modules, to see later which training updates."""
        held = [
            each.value
            for each in walk_held_torch_objects("", self._model)
            if isinstance(each.value, nn.Module)
        ]
        modules = [module for module in held if module is not self._model]
        self._values.remember([self._model, *modules], TrainedParameters(optimizers))

    def find(
        self, optimizers: Sequence[Optimizer], holders: Sequence[CopyHolder]
    ) -> CopiesAndRestrictions:
        """Return the present copies."""
        self._values.update()
        trained = TrainedParameters(optimizers)
        search = CopySearch(self._model, trained, self._values, self._declared)
        search.run(holders)
        found = search.found + _in_optimizers(optimizers)
        tensors, restrictions = find_tensor_copies(self._model, found, search.copies)
        registered = [copy.path for copy in search.copies if copy.is_registered]
        buffers = find_parameters_copied_to_buffers(self._model, registered)
        return CopiesAndRestrictions(
            [*search.copies, *tensors, *buffers], search.restrictions + restrictions
        )

    def restart(self) -> None:
        """Remember the present values. Call this after an edit, which moves them."""
        self._values.restart()


def _in_optimizers(optimizers: Sequence[Optimizer]) -> list[FoundTorchObject]:
    """Return the tensors that optimizers hold besides parameters and their state."""
    found = []
    for optimizer in optimizers:
        name = type(optimizer).__name__
        found += [
            each
            for each in walk_held_torch_objects(name, optimizer)
            if not isinstance(each.value, Optimizer)
        ]
        for i, group in enumerate(optimizer.param_groups):
            extra = {key: value for key, value in group.items() if key != "params"}
            found += list(walk_held_torch_objects(f"{name}.param_groups[{i}]", extra))
    return found
