"""Parameters that are split among the ranks of a training: by FSDP or tensor parallelism."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["has_split_parameters", "is_distributed", "local_part", "own_rows", "split_modules"]

# Loaded only in trainings that use them, and not in every build of PyTorch.
FSDP, DTENSOR = "torch.distributed.fsdp", "torch.distributed.tensor"


def split_modules(model: nn.Module) -> set[nn.Module]:
    """Return the modules whose parameters FSDP splits among the ranks."""
    fsdp = sys.modules.get(FSDP)
    if fsdp is None:
        return set()
    kinds = (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)
    wrapped = [module for module in model.modules() if isinstance(module, kinds)]
    return {inner for module in wrapped for inner in module.modules()}


def is_distributed(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor."""
    module = sys.modules.get(DTENSOR)
    return module is not None and isinstance(tensor, module.DTensor)


def has_split_parameters(model: nn.Module) -> bool:
    """Return whether this rank has only a part of some parameters between two forwards."""
    return bool(split_modules(model)) or any(map(is_distributed, model.parameters()))


def local_part(tensor: Tensor) -> Tensor:
    """Return what this rank has of a tensor, without graph and without a collective."""
    if not is_distributed(tensor):
        return tensor.detach()
    distributed: Any = tensor
    with torch.no_grad():
        local: Tensor = distributed.to_local()
    return local


def own_rows(tensor: Any) -> range | None:
    """Return which rows of a DTensor are on this rank; None if it has no whole rows."""
    rows = range(tensor.shape[0])
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:  # this rank takes no part
        return None
    for size, at, placement in zip(
        tensor.device_mesh.shape, coordinate, tensor.placements, strict=True
    ):
        if placement.is_replicate():
            continue
        if type(placement) is not sys.modules[DTENSOR].Shard or placement.dim != 0:
            return None
        chunk = -(-len(rows) // size)  # as `torch.chunk` divides them
        rows = rows[at * chunk : (at + 1) * chunk]
    return rows
