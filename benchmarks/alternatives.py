"""Other ways to log statistics of every batch, used as their users use them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training_loops import PlainTraining
from revacnn_lightning.telemetry.layer_selection import LayerSelection

__all__ = [
    "ALTERNATIVES",
    "LIMITS",
    "AllHandWrittenHooksTraining",
    "HandWrittenHooksTraining",
    "ReadAllOnceTraining",
    "ReadOnceTraining",
    "TensorBoardTraining",
    "WandbTraining",
]


class TensorBoardTraining(PlainTraining):
    """`add_histogram` of every parameter and its gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        from torch.utils.tensorboard import SummaryWriter

        self.folder = tempfile.TemporaryDirectory()
        self.writer = SummaryWriter(self.folder.name)
        self.index = 0

    def on_step_end(self, loss: Tensor) -> None:
        for name, parameter in self.module.named_parameters():
            self.writer.add_histogram(name, parameter, self.index)
            self.writer.add_histogram(f"{name}.grad", parameter.grad, self.index)
        self.index += 1

    def close(self) -> None:
        self.writer.close()
        self.folder.cleanup()


class WandbTraining(PlainTraining):
    """`wandb.watch(log_freq=1)` in offline mode."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        import wandb

        os.environ["WANDB_SILENT"] = "true"
        self.folder = tempfile.TemporaryDirectory()
        self.run = wandb.init(mode="offline", dir=self.folder.name, project="overhead")
        self.run.watch(self.module, log_freq=1)

    def on_step_end(self, loss: Tensor) -> None:
        self.run.log({})

    def close(self) -> None:
        self.run.unwatch(self.module)
        self.run.finish()
        self.folder.cleanup()


class HandWrittenHooksTraining(PlainTraining):
    """Hand-written hooks for the four default statistics of `ReVACNN`.

    For each filter of each convolution: Σ|a| over the pixels of the output, averaged over the
    images, from a forward hook; mean |∂L/∂w|, ‖w‖ and ‖Δw‖ / ‖w‖ after the optimizer step, from
    ``weight.grad`` and a copy of the weight made before the step. Each value is copied to the host
    immediately. All values of a batch are appended to a file as one float32 array, the cheapest
    possible log. Mixed precision, gradient accumulation and in-place activations are ignored.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.convs = [m for m in self.module.modules() if isinstance(m, nn.Conv2d)]
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self.values: list[np.ndarray] = []
        self.copies: list[Tensor] = []
        self.handles: list[Any] = []

    def begin_block(self) -> None:
        self.handles = [conv.register_forward_hook(self._forward_hook) for conv in self.convs]

    def end_block(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _forward_hook(self, conv: nn.Module, args: Any, output: Tensor) -> None:
        self._append(output.detach().abs().sum((0, 2, 3)) / len(output))

    def _append(self, tensor: Tensor) -> None:
        self.values.append(tensor.detach().cpu().numpy())

    def before_optimizer_step(self) -> None:
        self.copies = [conv.weight.detach().clone() for conv in self.convs]

    @torch.no_grad()
    def on_step_end(self, loss: Tensor) -> None:
        for conv, before in zip(self.convs, self.copies, strict=True):
            assert conv.weight.grad is not None
            norm = conv.weight.flatten(1).norm(dim=1)
            self._append(conv.weight.grad.abs().mean((1, 2, 3)))
            self._append(norm)
            self._append((conv.weight - before).flatten(1).norm(dim=1) / norm)
        np.concatenate(self.values).tofile(self.file)
        self.values = []

    def close(self) -> None:
        self.file.close()


class ReadOnceTraining(PlainTraining):
    """The least that any statistics cost: every map and every weight is read once.

    One sum over each map, gradient and weight of the layers that `ReVACNN` records by default,
    where it arises. Nothing is stored.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.layers: list[Any] = [layer for _, layer in LayerSelection().select(self.module)]
        self.handles: list[Any] = []

    def begin_block(self) -> None:
        self.handles = [layer.register_forward_hook(self._forward_hook) for layer in self.layers]

    def end_block(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _forward_hook(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        output.detach().sum(_all_but_filters(output))

    @torch.no_grad()
    def on_step_end(self, loss: Tensor) -> None:
        for layer in self.layers:
            weight = layer.weight
            for tensor in (weight.grad, weight, self.optimizer.state[weight]["momentum_buffer"]):
                tensor.flatten(1).sum(1)


class ReadAllOnceTraining(ReadOnceTraining):
    """The same, and the gradient of every map is read once, too."""

    def _forward_hook(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        super()._forward_hook(layer, args, output)
        output.register_hook(self._gradient_hook)

    def _gradient_hook(self, gradient: Tensor) -> None:
        gradient.sum(_all_but_filters(gradient))


def _all_but_filters(maps: Tensor) -> list[int]:
    """Return the dimensions of maps (B, C, ...) but the second."""
    return [dim for dim in range(maps.ndim) if dim != 1]


class AllHandWrittenHooksTraining(HandWrittenHooksTraining):
    """Hand-written hooks for all eight statistics of `ReVACNN`.

    In addition to `HandWrittenHooksTraining`: the share of positive pixels, from the forward hook;
    mean |∂L/∂a| and its signal-to-noise ratio over the images, from a full backward hook; and mean
    |∂L/∂w| as the optimizer reads it.
    """

    def begin_block(self) -> None:
        super().begin_block()
        self.handles += [
            conv.register_full_backward_hook(self._backward_hook) for conv in self.convs
        ]

    def _forward_hook(self, conv: nn.Module, args: Any, output: Tensor) -> None:
        super()._forward_hook(conv, args, output)
        self._append((output.detach() > 0).float().mean((0, 2, 3)))

    def _backward_hook(self, conv: nn.Module, grad_input: Any, grad_output: Any) -> None:
        gradient = grad_output[0].detach()
        per_image = gradient.sum((2, 3))  # (B, filters)
        self._append(gradient.abs().mean((0, 2, 3)))
        self._append(per_image.mean(0).abs() / per_image.std(0))

    def before_optimizer_step(self) -> None:
        super().before_optimizer_step()
        for conv in self.convs:
            assert conv.weight.grad is not None
            self._append(conv.weight.grad.abs().mean((1, 2, 3)))


LIMITS: dict[str, Callable[[nn.Module], PlainTraining]] = {
    "read once": ReadOnceTraining,
    "read once, all": ReadAllOnceTraining,
}
ALTERNATIVES: dict[str, Callable[[nn.Module], PlainTraining]] = {
    "TensorBoard": TensorBoardTraining,
    "wandb.watch": WandbTraining,
    "hooks": HandWrittenHooksTraining,
    "hooks, all": AllHandWrittenHooksTraining,
}
