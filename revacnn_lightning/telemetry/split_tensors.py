"""Parameters that are split among the ranks of a training: by FSDP or tensor parallelism."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "ShardedParameterLookup",
    "class_before_fsdp",
    "find_fsdp_modules",
    "find_tensor_parallel_modules",
    "has_split_parameters",
    "is_distributed",
    "local_index_range",
    "local_part",
    "local_row_range",
]

# Loaded only in trainings that use them, and not in every build of PyTorch.
FSDP, DTENSOR = "torch.distributed.fsdp", "torch.distributed.tensor"


def find_fsdp_modules(model: nn.Module) -> set[nn.Module]:
    """Return the modules whose parameters FSDP splits among the ranks."""
    fsdp = sys.modules.get(FSDP)
    if fsdp is None:
        return set()
    kinds = (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)
    wrapped = [module for module in model.modules() if isinstance(module, kinds)]
    return {inner for module in wrapped for inner in module.modules()}


def class_before_fsdp(module_class: type) -> type:
    """Return the class of a module before FSDP2 has derived one of its own, such as FSDPConv2d."""
    fsdp = sys.modules.get(FSDP)
    is_derived = fsdp is not None and module_class.__bases__[:1] == (fsdp.FSDPModule,)
    return module_class.__bases__[-1] if is_derived else module_class


def is_distributed(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor."""
    module = sys.modules.get(DTENSOR)
    return module is not None and isinstance(tensor, module.DTensor)


def has_split_parameters(model: nn.Module) -> bool:
    """Return whether this rank has only a part of some parameters between two forwards."""
    return bool(find_fsdp_modules(model)) or any(map(is_distributed, model.parameters()))


def find_tensor_parallel_modules(model: nn.Module, modules: Iterable[nn.Module]) -> set[nn.Module]:
    """Return the modules among ``modules`` that tensor parallelism splits.

    Each rank computes another part of their output.

    FSDP also splits their weights, but puts them together for each forward.
    """
    weights = {module: module._parameters.get("weight") for module in modules}
    split = {m: w for m, w in weights.items() if w is not None and is_distributed(w)}
    if not split:
        return set()
    by_fsdp = find_fsdp_modules(model)
    return {m for m, w in split.items() if m not in by_fsdp or _split_dims(w) > 1}


def _split_dims(tensor: Any) -> int:
    """Return along how many dimensions of the mesh of ranks a DTensor is split."""
    return sum(not placement.is_replicate() for placement in tensor.placements)


def local_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that is on this rank, without graph and without a collective."""
    if not is_distributed(tensor):
        return tensor.detach()
    distributed: Any = tensor
    with torch.no_grad():
        local: Tensor = distributed.to_local()
    return local.detach()


def local_index_range(tensor: Any, dim: int) -> range | None:
    """Return which indices along a dimension of a DTensor are on this rank; None if unknown."""
    indices = range(tensor.shape[dim])
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:  # this rank takes no part
        return None
    for size, at, placement in zip(
        tensor.device_mesh.shape, coordinate, tensor.placements, strict=True
    ):
        if placement.is_replicate():
            continue
        if type(placement) is not sys.modules[DTENSOR].Shard:
            return None
        if placement.dim == dim:
            chunk = -(-len(indices) // size)  # as `torch.chunk` divides them
            indices = indices[at * chunk : (at + 1) * chunk]
    return indices


def local_row_range(tensor: Any) -> range | None:
    """Return which rows of a DTensor are on this rank; None if it has no whole rows."""
    others = range(1, len(tensor.shape))
    is_whole = all(local_index_range(tensor, dim) == range(tensor.shape[dim]) for dim in others)
    return local_index_range(tensor, 0) if is_whole else None


class ShardedParameterLookup:
    """The sharded parameters (DTensors) of a model that FSDP2 splits, which its optimizers update.

    FSDP2 puts whole parameters in their places for a forward, and leaves some there after a forward
    without a backward, such as the last one of a validation. Create it before any forward.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._stored = [
            (module, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and is_distributed(parameter)
        ]

    def sharded(self, parameter: Tensor) -> Tensor:
        """Return the DTensor of a parameter that a module has now; any other tensor itself."""
        for module, name, stored in self._stored:
            if module._parameters.get(name) is parameter:
                return stored
        return parameter
