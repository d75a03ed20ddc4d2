"""Keeps synchronized batch norms from waiting for other ranks in a forward that one rank runs.

In training mode, a SyncBatchNorm waits for the other ranks, which do not run that forward. In
evaluation mode it does not wait: it computes what any batch norm computes.
"""

from __future__ import annotations

import functools

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["patch_sync_batch_norm", "unsupported_norm_class_name"]


def patch_sync_batch_norm(module: nn.Module) -> None:
    """Make a SyncBatchNorm use the samples of this rank only, until its attributes are restored.

    Any other module stays as it is.
    """
    if isinstance(module, nn.SyncBatchNorm) and _has_forward_of_torch(module):
        vars(module)["forward"] = functools.partial(_forward, module)


def unsupported_norm_class_name(model: nn.Module) -> str:
    """Return the class name of a synchronized norm that `patch_sync_batch_norm` cannot handle.

    It is "" if there is none.
    """
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
