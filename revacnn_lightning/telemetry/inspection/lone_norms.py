"""Batch norms that average over all ranks of a training, in forwards that one rank runs alone.

In training mode, a SyncBatchNorm waits for the other ranks, which do not run that forward. In
evaluation mode it does not wait: it computes what any batch norm computes.
"""

from __future__ import annotations

import functools

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["find_waiting_norm", "normalize_alone"]


def normalize_alone(module: nn.Module) -> None:
    """Let a SyncBatchNorm average over the samples of this rank, until its attributes are restored.

    Any other module stays as it is.
    """
    if isinstance(module, nn.SyncBatchNorm) and _has_forward_of_torch(module):
        vars(module)["forward"] = functools.partial(_forward, module)


def find_waiting_norm(model: nn.Module) -> str:
    """Return the class of a norm that `normalize_alone` does not keep from waiting; "" if none."""
    for module in model.modules():
        name = type(module).__name__
        if isinstance(module, nn.SyncBatchNorm):
            if not _has_forward_of_torch(module):
                return name
        elif "sync" in name.lower() and "running_mean" in module._buffers:  # of another library
            return name
    return ""


def _has_forward_of_torch(norm: nn.SyncBatchNorm) -> bool:
    return type(norm).forward is nn.SyncBatchNorm.forward and "forward" not in vars(norm)


def _forward(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """Return what a batch norm in one process returns for (B, C, ...).

    One value per channel has no variance in this rank, though it has one in all ranks together:
    then the running statistics are used.
    """
    if norm.training and x.numel() == x.shape[1] and norm.running_mean is not None:
        mean, variance = norm.running_mean, norm.running_var
        return F.batch_norm(x, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
    return _BatchNorm.forward(norm, x)
