"""Which image or map a linear layer reads flattened.

The layer receives (B, K). Whether these K values are those of a map (C, H, W), of a signal (C, L)
or of a volume (C, D, H, W) shows the view that flattened it: as a view of the map, or in the
autograd graph, behind elementwise modules such as dropout.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

__all__ = ["shape_before_flatten"]

# Nodes of elementwise functions between the flattening and the layer.
_ELEMENTWISE = ("Dropout", "NativeDropout", "Mul", "Relu", "Gelu", "Silu", "LeakyRelu", "ToCopy")
_VIEWS = ("View", "UnsafeView", "ReshapeAlias", "Flatten")
MAX_NODES = 4  # elementwise functions in a row
_DIMENSIONS = (3, 4, 5)  # of a batch of signals, maps or volumes


def shape_before_flatten(received: Any) -> tuple[int, ...]:
    """Return the shape that a linear layer's input (B, K) had before it was flattened.

    It is (C, L) for a signal, (C, H, W) for a map or (C, D, H, W) for a volume, and () if the
    input was not flattened.
    """
    if not isinstance(received, Tensor) or received.dim() != 2:
        return ()
    base = received._base
    candidates = [] if base is None else [tuple(base.shape)]
    candidates.append(_shape_before_view(received))
    features = received.shape[1]
    for shape in candidates:
        is_map = len(shape) in _DIMENSIONS and shape[0] == len(received)
        if is_map and math.prod(shape[1:]) == features:
            return tuple(shape[1:])
    return ()


def _shape_before_view(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of what a view in the autograd graph of the tensor has flattened."""
    node: Any = tensor.grad_fn
    for _ in range(MAX_NODES):
        if node is None:
            return ()
        name = node.name().rstrip("0123456789").removesuffix("Backward")
        if name in _VIEWS:
            return tuple(getattr(node, "_saved_self_sym_sizes", ()))
        if name not in _ELEMENTWISE or not node.next_functions:
            return ()
        node = node.next_functions[0][0]
    return ()
