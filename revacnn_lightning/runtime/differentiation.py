"""What modules receive, and the gradients of the loss at what they return, in one replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Captured", "inputs_and_output_gradients"]

Captured = dict[str, tuple[Tensor, Tensor]]  # module -> its input, the gradient of its output


def inputs_and_output_gradients(
    modules: Mapping[str, nn.Module], compute_loss: Callable[[], Tensor]
) -> Captured:
    """Return the input and the gradient of the output of each module that was called once.

    Args:
        modules: the modules by name.
        compute_loss: runs the network with gradients and returns the loss, a scalar.
    """
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in modules}

    def observe(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
                calls[name].append((inputs[0].detach(), output))

        return hook

    with ExitStack() as stack, torch.enable_grad():
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(observe(name)).remove)
        loss = compute_loss()
    once = {name: found[0] for name, found in calls.items() if len(found) == 1}
    usable = {name: pair for name, pair in once.items() if pair[1].requires_grad}
    if not loss.requires_grad or not usable:
        return {}
    outputs = [output for _, output in usable.values()]
    gradients = torch.autograd.grad(loss, outputs, allow_unused=True)
    return {
        name: (inputs, gradient)
        for (name, (inputs, _)), gradient in zip(usable.items(), gradients, strict=True)
        if gradient is not None
    }
