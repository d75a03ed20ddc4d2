"""What a forward in training mode calls, with the results that it has in evaluation.

A trace in training mode finds what training calls. With these results it shares the outputs of its
operations with the evaluations of an edit, and its own output can be compared with theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.steering.tracing.call_signature import DRAW_MASK
from revacnn_lightning.steering.tracing.labels import labeled_dims
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["evaluated_call"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_BATCH_NORM = torch.ops.aten.native_batch_norm.default

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]  # operation, arguments, named arguments


def evaluated_call(trace: Trace, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return the call to run instead of one of a forward in training mode.

    - A batch norm of torch normalizes with its running statistics. New filters have none yet: their
      norm would leave them as they are, and they might be silent. They have those of the batch.
    - A random mask has its mean everywhere. Dropout divides by it, so it keeps all values.
    - Any other call is the same.
    """
    if func is _BATCH_NORM:
        return func, _without_batch_statistics(trace, args), kwargs
    if func is DRAW_MASK and args[0].is_floating_point():
        mean = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        return torch.ops.aten.fill_.Scalar, (args[0], mean), {}
    return func, args, kwargs


def _without_batch_statistics(trace: Trace, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with which a batch norm of torch normalizes as in evaluation.

    A function may use the tensors that it updates, a module does not.
    """
    x, running_mean, running_var, uses_batch = args[0], *args[3:6]
    norm = trace.running_module
    if norm is None or type(norm) not in _BATCH_NORMS or not uses_batch:
        return args
    known: Any = norm._buffers.get("running_mean")
    if running_mean is None or running_mean is not known:
        return args
    with torch._C.DisableTorchFunctionSubclass():
        new = _new_channels(trace, x)
        if new is None:
            return args
        if len(new):
            part = x.index_select(1, new).transpose(0, 1).flatten(1).to(running_mean)
            mean, var = part.mean(1), part.var(1, correction=0)
            running_mean = running_mean.index_copy(0, new, mean)
            running_var = running_var.index_copy(0, new, var)
    return (*args[:3], running_mean, running_var, False, *args[6:])


def _new_channels(trace: Trace, x: Tensor) -> Tensor | None:
    """Return the indices along dimension 1 that have new filters; None if that is not known."""
    activity = trace.activity
    if not activity.has_new_filters:
        return torch.empty(0, dtype=torch.long)
    labels = trace.labels(x)
    found = torch.zeros(x.shape[1], dtype=torch.bool)
    for label in labels:
        is_new = activity.are_new_filters(label)
        if labeled_dims(label) == {1}:
            found |= is_new.reshape(-1)
        elif is_new.any():
            return None
    return found.nonzero().flatten().to(x.device) if labels else None
