"""Finds the weight that a layer computes in each forward, in the forward of the user.

Weight norms, spectral norms, pruning masks, weight standardization, fake quantization and networks
that generate weights compute the weight that a conv multiplies with. Computing it once more could
change the training. Therefore forward hooks receive it where it is computed anyway:

- the output of the parametrization (`torch.nn.utils.parametrize`);
- the plain attribute that a hook or the user's code has set before the forward (pruning masks, the
  hook-based norms of `torch.nn.utils`, generated weights);
- otherwise, for subclasses with a forward of their own, the weight in the autograd graph of the
  conv's output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.conv import parametrization_of, stored_tensor
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["computed_weight", "weight_computing_module"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_STANDARD_FORWARDS = tuple(kind.forward for kind in (*_CONVS, *_TRANSPOSED, nn.Linear))
_STANDARD_CONV_FORWARDS = tuple(
    getattr(kind, "_conv_forward", None) for kind in (*_CONVS, *_TRANSPOSED, nn.Linear)
)


def weight_computing_module(conv: UnitLayer) -> nn.Module | None:
    """Return the module whose forward computes the weight; None if it is a plain parameter."""
    if not _has_standard_forward(conv):
        return conv
    if isinstance(conv._parameters.get("weight"), Tensor):
        return None
    return parametrization_of(conv) or conv


def computed_weight(conv: UnitLayer, module: nn.Module, output: Any) -> Tensor | None:
    """Return the weight of a forward that has just ended, or None if it is unknown.

    Args:
        conv: the conv.
        module: the `weight_computing_module` of the conv, which was called.
        output: the output of that module.
    """
    if not isinstance(output, Tensor):
        return None
    if module is not conv:
        return output
    if _has_standard_forward(conv):
        weight = stored_tensor(conv, "weight")
        if weight is not None:
            return weight
    # A hook may replace the output, as that of an inserted block does. None of them is ours.
    return None if conv._forward_hooks else _weight_in_graph(output)


def _has_standard_forward(conv: UnitLayer) -> bool:
    """Return whether the conv multiplies with its attribute ``weight`` as it is."""
    kind: Any = type(conv)
    return (
        kind.forward in _STANDARD_FORWARDS
        and getattr(kind, "_conv_forward", None) in _STANDARD_CONV_FORWARDS
        and kind.__getattr__ is nn.Module.__getattr__
        and "forward" not in vars(conv)
    )


def _weight_in_graph(output: Tensor) -> Tensor | None:
    """Return the weight that autograd has saved for the backward pass of a conv's output.

    Returns None without a graph, where the output is not that of a convolution, and where hooks on
    saved tensors, as of activation checkpointing, would run.
    """
    node: Any = output.grad_fn
    if node is None or not node.name().startswith("Convolution") or _has_saved_tensor_hooks():
        return None
    weight = getattr(node, "_saved_weight", None)
    # Autocast converts a plain parameter; the parameter itself shows more.
    is_converted = (
        weight is not None and weight.grad_fn is not None and "ToCopy" in weight.grad_fn.name()
    )
    return None if is_converted else weight


def _has_saved_tensor_hooks() -> bool:
    """Return whether the user's hooks run when a saved tensor is read."""
    # Has no public counterpart. Where it is missing, assume that there are hooks.
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is None or top(True) is not None
