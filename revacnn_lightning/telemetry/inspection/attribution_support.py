"""Which networks support deconvolution and guided backpropagation, from their autograd graph."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["why_graph_unsupported"]

# Nodes of non-linearities other than ReLU, and the names that users know.
_OTHER_NONLINEARITIES = {
    "Celu": "CELU",
    "Clamp": "clamp",
    "ClampMax": "clamp",
    "ClampMin": "clamp",
    "Elu": "ELU",
    "Gelu": "GELU",
    "Hardshrink": "Hardshrink",
    "Hardsigmoid": "Hardsigmoid",
    "Hardswish": "Hardswish",
    "Hardtanh": "ReLU6 or Hardtanh",
    "LeakyRelu": "LeakyReLU",
    "LogSigmoid": "LogSigmoid",
    "Mish": "Mish",
    "PreluKernel": "PReLU",
    "RreluWithNoise": "RReLU",
    "Sigmoid": "sigmoid",
    "Silu": "SiLU",
    "Softmax": "softmax",
    "Softplus": "Softplus",
    "Softshrink": "Softshrink",
    "Tanh": "tanh",
    "Threshold": "Threshold",
}


def why_graph_unsupported(path: list[Any], relu_nodes: Mapping[nn.Module, list[Any]]) -> str:
    """Return why captum would compute neither method on this backward path; "" if it computes both.

    Args:
        path: the autograd nodes from the map to the image, as `backward_path` returns them.
        relu_nodes: each ``nn.ReLU`` module with the nodes of its calls, in the order of the calls.
    """
    if not path:
        return "no gradient flows from this layer to the image"
    names = {node: node.name().rstrip("0123456789").removesuffix("Backward") for node in path}
    others = {
        _OTHER_NONLINEARITIES[name] for name in names.values() if name in _OTHER_NONLINEARITIES
    }
    if others:
        return (
            "deconvolution and guided backpropagation are defined for ReLU networks; the path to "
            f"this layer contains {', '.join(sorted(others))}"
        )
    module_nodes = {node for nodes in relu_nodes.values() for node in nodes}
    relus = [node for node, name in names.items() if name == "Relu"]
    if any(node not in module_nodes for node in relus):
        return (
            "the path to this layer contains a functional ReLU, which captum cannot hook; use "
            "nn.ReLU modules instead"
        )
    uses = Counter(edge for node in path for edge in node.next_functions)
    if any(uses[node.next_functions[0]] > 1 for node in relus):
        return "on the path to this layer a ReLU and another operation read the same tensor"
    on_path = set(path)
    if any(_serves_branches(nodes, on_path) for nodes in relu_nodes.values()):
        return (
            "on the path to this layer one nn.ReLU module is shared by parallel branches, which "
            "captum cannot distinguish; use one module per branch"
        )
    return ""


def _serves_branches(nodes: list[Any], on_path: set[Any]) -> bool:
    """Return whether the calls of one module lie side by side rather than one behind the other."""
    calls = [node for node in nodes if node in on_path]
    return not all(_depends_on(later, node) for node, later in itertools.pairwise(calls))


def _depends_on(node: Any, other: Any) -> bool:
    """Return whether the forward of ``node`` depends on the output of ``other``."""
    known, stack = {node}, [node]
    while stack:
        for previous, _ in stack.pop().next_functions:
            if previous is other:
                return True
            if previous is not None and previous not in known:
                known.add(previous)
                stack.append(previous)
    return False
