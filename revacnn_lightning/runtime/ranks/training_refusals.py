"""Why a training cannot be edited, or its network not be run between two batches."""

from __future__ import annotations

from typing import Any

from torch import nn

from revacnn_lightning.runtime.ranks.started_processes import (
    has_adopt_edits_hook,
    was_started_by_multiprocessing,
)
from revacnn_lightning.telemetry.inspection.norm_sync import unsupported_norm_class_name
from revacnn_lightning.telemetry.split_tensors import has_split_parameters

__all__ = [
    "SPLIT",
    "are_parameters_split",
    "edit_refusal",
    "extra_backward_refusal",
    "extra_forward_refusal",
]

# FSDP2 gathers parameters by hooks of its own, which another forward in between would confuse.
SPLIT = (
    "the parameters of this network are split, and are whole only during the forwards of the "
    "training"
)

# Strategies that split the parameters among the processes, also if there is only one.
MODEL_PARALLEL = "ModelParallelStrategy"
SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", MODEL_PARALLEL)


def edit_refusal(trainer: Any, module: nn.Module) -> str:
    """Return why the network of this training cannot be edited; "" if it can."""
    strategy = getattr(trainer, "strategy", None)
    name = type(strategy).__name__
    if any(_is_kind(strategy, sharding) for sharding in SHARDING):
        rest = "filters can only be frozen, and learning rates of layers scaled; "
        freezing = rest if are_parameters_split(trainer, module) else ""
        return (
            f"{name} splits the parameters among the processes, so that none has a whole filter; "
            f"{freezing}train with a strategy that keeps the whole network in each process, such "
            "as 'ddp'"
        )
    if was_started_by_multiprocessing(trainer) and not has_adopt_edits_hook(module):
        return (
            "the process that has started this one cannot load an edited network when the training "
            "ends; call prepare(model) of the callback before trainer.fit, or train with "
            "strategy='ddp'"
        )
    if trainer.world_size == 1:
        return ""
    if name != "DDPStrategy":
        return (
            f"edits in several processes work with Lightning's DDPStrategy, not with {name}; "
            "train with strategy='ddp'"
        )
    norm = unsupported_norm_class_name(module)
    if norm:
        return (
            f"a forward of a {norm} waits for the other processes, so that no edit can be "
            "verified; train with torch.nn.SyncBatchNorm, or without synchronized norms"
        )
    if getattr(strategy, "_ddp_comm_state", None) is not None:
        return (
            "the communication hook of this DDPStrategy keeps a state for the present sizes of the "
            "gradients; train without ddp_comm_state"
        )
    return _optimizer_refusal(trainer)


def are_parameters_split(trainer: Any, module: nn.Module) -> bool:
    """Return whether FSDP2 or tensor parallelism split the parameters, even for one process.

    Then filters can be frozen and learning rates scaled; other edits are refused.
    """
    is_parallel = _is_kind(getattr(trainer, "strategy", None), MODEL_PARALLEL)
    return is_parallel and has_split_parameters(module)


def _is_kind(strategy: Any, name: str) -> bool:
    """Return whether the class of a strategy, or one that it derives from, has this name."""
    return any(kind.__name__ == name for kind in type(strategy).__mro__)


def _optimizer_refusal(trainer: Any) -> str:
    for optimizer in trainer.optimizers:
        kinds = [kind.__module__ for kind in type(optimizer).__mro__]
        if any(kind.startswith("torch.distributed.") for kind in kinds):
            return (
                f"{type(optimizer).__name__} splits its state among the processes; train with an "
                "optimizer of torch.optim"
            )
    return ""


def extra_forward_refusal(trainer: Any, module: nn.Module) -> str:
    """Return why this process must not run a forward of its own between two batches; "" if it may.

    With split parameters, or batch norms that others have synchronized, it would wait for the
    other processes.
    """
    is_replicated = type(trainer.strategy).__name__ == "DDPStrategy"
    if is_replicated and not unsupported_norm_class_name(module):
        return ""
    return extra_backward_refusal(trainer, module)


def extra_backward_refusal(trainer: Any, module: nn.Module) -> str:
    """Return why this process must not run a backward between two batches; "" if it may."""
    if trainer.world_size > 1:
        count = trainer.world_size
        return f"this training runs in {count} processes, which must run the network together"
    return SPLIT if has_split_parameters(module) else ""
