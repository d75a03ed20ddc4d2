"""Why the network of a training that replays CUDA graphs is not edited.

A graph reads and writes the memory of the tensors that it was captured with. After an edit, it
would train the tensors of before, and nobody would see it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.module_tree import list_named_modules

__all__ = ["GraphReplayDetector", "graphed_module_edit_refusal"]

EFFECT = (
    "which would go on with the weights as they are before the edit; train without CUDA graphs, or "
    "capture them after the last edit"
)


REPLAYED = f"the training replays a CUDA graph of this network, {EFFECT}"


def graphed_module_edit_refusal(model: nn.Module) -> str:
    """Return why a network with a graphed module cannot be edited; "" if it has none."""
    name = _graphed_module(model)
    if name is None:
        return ""
    return f"{name} replays a CUDA graph of torch.cuda.make_graphed_callables, {EFFECT}"


class GraphReplayDetector:
    """Detects that a training step has replayed a CUDA graph.

    Then parameters or gradients on the GPU have changed though PyTorch has counted no operation
    that writes to them: a graph replays kernels without operations.

    Args:
        model: the network, before a training step.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors: list[Tensor] = [p for p in model.parameters() if p.is_cuda]
        tensors += [p.grad for p in tensors if p.grad is not None]
        tensors = [each for each in tensors if each.layout is torch.strided]
        self._before = [(tensor, tensor._version, _norm(tensor)) for tensor in tensors]

    def refusal(self) -> str:
        """Return why the network cannot be edited, after the step; "" if no graph has run.

        This waits for the GPU. Call it only if the step has run no module of the network.
        """
        for tensor, version, norm in self._before:
            if tensor._version == version and not torch.equal(_norm(tensor), norm):
                return REPLAYED
        return ""


def _norm(tensor: Tensor) -> Tensor:
    """Return the norm as a float64, NaN as 0."""
    with torch.no_grad():
        return torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64).nan_to_num()


def _graphed_module(model: nn.Module) -> str | None:
    """Return the name of a module whose forward a graph has replaced, if there is any."""
    for name, module in list_named_modules(model):
        forward = vars(module).get("forward")
        if getattr(forward, "__qualname__", "").startswith("make_graphed_callables."):
            return name or type(module).__name__
    return None
