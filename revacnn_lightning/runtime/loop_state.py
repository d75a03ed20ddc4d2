"""What a training loop of your own consists of: model, optimizers, and what else has a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.runtime.loss_scale import loss_scale_of
from revacnn_lightning.runtime.schedulers import find_schedulers
from revacnn_lightning.steering.checkpoint import (
    add_edits,
    adopt_structure,
    find_edit_state,
    inserted_layer_names,
    regroup_parameters_as_saved,
    restore_entry_ages,
    saved_parameter_names,
)
from revacnn_lightning.steering.holders.object_walk import CopyHolder
from revacnn_lightning.steering.holders.optimizers import unwrapped_optimizers
from revacnn_lightning.steering.loading import File, read_checkpoint

__all__ = ["LoopState", "unwrapped_model"]

FABRIC = ("lightning.fabric.", "lightning_fabric.")
RUN = "revacnn_run"  # the entry of a checkpoint with the state of the run


class LoopState:
    """The objects of a training loop.

    Args:
        model: as the loop calls it; wrappers of Fabric and of data parallelism are looked through.
        optimizers: one, or several in a list. The list is kept: the loop may replace its entries.
        others: further objects by name. What has a ``state_dict`` is part of checkpoints.

    Attributes:
        called: what the loop calls.
        model: the network itself.
        others: see above.

    Raises:
        TypeError: one of them is something else.
    """

    def __init__(
        self, model: nn.Module, optimizers: Optimizer | list[Any], others: Mapping[str, Any]
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, not a {type(model).__name__}")
        self.called = model
        self.model = unwrapped_model(model)
        self.others = dict(others)
        self.optimizers = optimizers

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers that train now, without the wrappers of Fabric."""
        return unwrapped_optimizers(self._optimizers)

    @optimizers.setter
    def optimizers(self, optimizers: Optimizer | list[Any]) -> None:
        given = [optimizers] if isinstance(optimizers, Optimizer) else optimizers
        for each in given if isinstance(given, (list, tuple)) else [given]:
            if not isinstance(each, Optimizer):
                raise TypeError(
                    f"optimizers must be an optimizer of torch.optim or a list of them, not a "
                    f"{type(each).__name__}"
                )
        self._optimizers = given

    @property
    def schedulers(self) -> Sequence[Any]:
        """The learning rate schedulers among the other objects."""
        return find_schedulers([SimpleNamespace(**self.others)])

    @property
    def holders(self) -> list[CopyHolder]:
        """The other objects: they may hold copies of the model."""
        return [CopyHolder(name, value) for name, value in self.others.items()]

    @property
    def loss_scale(self) -> Tensor | float:
        """The factor of the gradient scaler among the other objects; 1 without one."""
        scalers = [s for s in self.others.values() if isinstance(s, torch.amp.GradScaler)]
        return loss_scale_of(scalers[0]) if scalers else 1.0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    # ------------------------------------------------------------------ checkpoints

    def save(self, path: Path, run: Mapping[str, Any]) -> None:
        """Save a checkpoint that `load`, `load_edited` and ``torch.load`` read.

        Args:
            path: the path of the file. Its folder is created.
            run: where the training is.
        """
        checkpoint: dict[str, Any] = {
            "state_dict": self.model.state_dict(),
            "optimizer_states": [each.state_dict() for each in self.optimizers],
            **{name: each.state_dict() for name, each in self._with_state()},
            RUN: dict(run),
        }
        add_edits(checkpoint, self.model, self.optimizers)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)

    def load(self, file: File) -> dict[str, Any]:
        """Give all objects the state of a checkpoint, edits included; return that of the run.

        Raises:
            SteeringError: the file is no checkpoint of such a loop.
        """
        checkpoint = read_checkpoint(file)
        optimizers, states = self.optimizers, checkpoint.get("optimizer_states")
        missing = [name for name, _ in self._with_state() if name not in checkpoint]
        if "state_dict" not in checkpoint or states is None or missing:
            lacks = ", ".join(missing) or "state_dict and optimizer_states"
            raise SteeringError(f"the file is no checkpoint of this training: it lacks {lacks}")
        if len(states) != len(optimizers):
            raise SteeringError(
                f"the checkpoint was written with {len(states)} optimizers, but there are "
                f"{len(optimizers)}; create the same ones"
            )
        adopt_structure(self.model, checkpoint, optimizers, self.holders)
        self._order(optimizers, find_edit_state(checkpoint))
        self.model.load_state_dict(checkpoint["state_dict"])
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        for name, each in self._with_state():
            each.load_state_dict(checkpoint[name])
        return dict(checkpoint.get(RUN, {}))

    def _order(self, optimizers: list[Optimizer], edits: dict[str, Any] | None) -> None:
        """Bring the parameters of fresh optimizers into the order of their saved states."""
        if edits is None:
            return
        inserted = inserted_layer_names(edits)
        for optimizer, groups in zip(
            optimizers, saved_parameter_names(edits, len(optimizers)), strict=False
        ):
            regroup_parameters_as_saved(optimizer, self.model, groups, inserted)
        restore_entry_ages(self.model, optimizers, edits)

    def _with_state(self) -> Iterator[tuple[str, Any]]:
        for name, each in self.others.items():
            if callable(getattr(each, "state_dict", None)):
                yield name, each


def unwrapped_model(model: nn.Module) -> nn.Module:
    """Return the network in the wrappers of Fabric, torch.compile and data parallelism."""
    while True:
        inner = model._modules.get("_orig_mod") or (model.module if _has_module(model) else None)
        if not isinstance(inner, nn.Module) or inner is model:
            return model
        model = inner


def _has_module(model: nn.Module) -> bool:
    is_of_fabric = type(model).__module__.startswith(FABRIC)
    return is_of_fabric or isinstance(model, (DataParallel, DistributedDataParallel))
