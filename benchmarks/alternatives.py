"""What others do per batch, as their users do it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training_loops import Plain

__all__ = ["PEERS", "PlainHooks", "PlainHooksAll", "TensorBoard", "Wandb"]


class TensorBoard(Plain):
    """`add_histogram` of the weights and the gradients of every parameter."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        from torch.utils.tensorboard import SummaryWriter

        self.folder = tempfile.TemporaryDirectory()
        self.writer = SummaryWriter(self.folder.name)
        self.index = 0

    def after(self, loss: Tensor) -> None:
        for name, parameter in self.module.named_parameters():
            self.writer.add_histogram(name, parameter, self.index)
            self.writer.add_histogram(f"{name}.grad", parameter.grad, self.index)
        self.index += 1

    def close(self) -> None:
        self.writer.close()
        self.folder.cleanup()


class Wandb(Plain):
    """`wandb.watch(log_freq=1)`, offline."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        import wandb

        os.environ["WANDB_SILENT"] = "true"
        self.folder = tempfile.TemporaryDirectory()
        self.wandb = wandb
        self.run = wandb.init(mode="offline", dir=self.folder.name, project="overhead")
        self.run.watch(self.module, log_freq=1)

    def after(self, loss: Tensor) -> None:
        self.run.log({})

    def close(self) -> None:
        self.run.unwatch(self.module)
        self.run.finish()
        self.folder.cleanup()


class PlainHooks(Plain):
    """What one writes by hand for the four statistics that we always gather.

    Per filter of every conv: Σ|a| over the pixels of the conv's output, mean over the images, from
    a forward hook on the conv; mean |∂L/∂w|, ‖w‖ and ‖Δw‖ / ‖w‖ after the step, from the ``.grad``
    of the weight and a copy of it made before the step. Each value goes to the host as it is made;
    all of a batch are appended to a file as one float32 array, the cheapest log there is. No
    attention is paid to mixed precision, accumulation, or what overwrites a map in place.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.convs = [m for m in self.module.modules() if isinstance(m, nn.Conv2d)]
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self.values: list[np.ndarray] = []
        self.copies: list[Tensor] = []
        self.handles: list[Any] = []

    def begin(self) -> None:
        self.handles = [conv.register_forward_hook(self._forward) for conv in self.convs]

    def end(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _forward(self, conv: nn.Module, given: Any, output: Tensor) -> None:
        self._keep(output.detach().abs().sum((0, 2, 3)) / len(output))

    def _keep(self, tensor: Tensor) -> None:
        self.values.append(tensor.detach().cpu().numpy())

    def before_step(self) -> None:
        self.copies = [conv.weight.detach().clone() for conv in self.convs]

    @torch.no_grad()
    def after(self, loss: Tensor) -> None:
        for conv, before in zip(self.convs, self.copies, strict=True):
            assert conv.weight.grad is not None
            norm = conv.weight.flatten(1).norm(dim=1)
            self._keep(conv.weight.grad.abs().mean((1, 2, 3)))
            self._keep(norm)
            self._keep((conv.weight - before).flatten(1).norm(dim=1) / norm)
        np.concatenate(self.values).tofile(self.file)
        self.values = []

    def close(self) -> None:
        self.file.close()


class PlainHooksAll(PlainHooks):
    """By hand for all eight statistics: a full backward hook on every conv besides.

    To the above: the share of positive pixels, from the forward hook; mean |∂L/∂a| and its signal
    to noise over the images, from the full backward hook; mean |∂L/∂w| as the optimizer sees it.
    """

    def begin(self) -> None:
        super().begin()
        self.handles += [conv.register_full_backward_hook(self._backward) for conv in self.convs]

    def _forward(self, conv: nn.Module, given: Any, output: Tensor) -> None:
        super()._forward(conv, given, output)
        self._keep((output.detach() > 0).float().mean((0, 2, 3)))

    def _backward(self, conv: nn.Module, to_input: Any, to_output: Any) -> None:
        gradient = to_output[0].detach()
        images = gradient.sum((2, 3))
        self._keep(gradient.abs().mean((0, 2, 3)))
        self._keep(images.mean(0).abs() / images.std(0))

    def before_step(self) -> None:
        super().before_step()
        for conv in self.convs:
            assert conv.weight.grad is not None
            self._keep(conv.weight.grad.abs().mean((1, 2, 3)))


PEERS: dict[str, Callable[[nn.Module], Plain]] = {
    "TensorBoard": TensorBoard,
    "wandb.watch": Wandb,
    "plain hooks": PlainHooks,
    "plain hooks, all": PlainHooksAll,
}
