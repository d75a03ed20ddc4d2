"""Sums over the weights of the convs: gradients, norms, what the optimizer made of them.

The gradient of a batch is read from ``.grad`` when the backward pass has ended, all layers in one
loop, wherever ``.grad`` holds this batch and nothing else. That is before anyone unscales or clips
it. In the middle of an accumulation window ``.grad`` holds more; there the hook on the weight sums
what the backward pass brings. (The hook must not keep that tensor: autograd would then have to copy
it into ``.grad`` instead of handing it over.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry import statistics as reduce
from revacnn_lightning.telemetry.recording.timing import Stopwatch

__all__ = ["GradientReader", "OptimizerStep", "WeightSums", "weight_of"]


def weight_of(conv: reduce.Conv) -> Tensor | None:
    """The weight parameter of a conv; None while it is lazy, and where it is parametrized."""
    weight = conv._parameters.get("weight")
    return None if weight is None or nn.parameter.is_lazy(weight) else weight


@dataclass(eq=False)
class WeightSums:
    """What is known of the weight of one conv. Tensors are (C,), sums over the K coefficients."""

    conv: reduce.Conv
    parameter: Tensor | None = None  # the one that has our hook
    handle: RemovableHandle | None = None
    in_hook: bool = False  # .grad cannot be read after the backward pass: use what the hook sees
    arrived: bool = False  # a gradient came in this batch
    settled: Tensor | None = None  # Σ|∂L/∂w| of gradients that .grad does not hold any more
    current: Tensor | None = None  # Σ|∂L/∂w| of the gradient that .grad holds,
    grad: Tensor | None = None  # which is this tensor
    version: int = 0  # at this version
    norm: Tensor | None = None  # ‖w‖, as long as the weight is at
    norm_version: int = -1
    before: Tensor | None = None  # copy of the weight, while the optimizer steps
    update: Tensor | None = None  # divided by `per_rate`: ‖Δw‖ of the last step
    per_rate: float = 1.0
    norm_after: Tensor | None = None  # ‖w‖ after it
    used: Tensor | None = None  # Σ|gradient that the last step used|

    def begin(self) -> None:
        """Forget the gradients of the batch before."""
        self.arrived = False
        self.settled = self.current = self.grad = None

    def forget(self) -> None:
        """Forget everything: the weight is another."""
        self.begin()
        self.norm = self.before = self.update = self.norm_after = self.used = None

    def holds_this_batch(self) -> bool:
        """Whether ``.grad``, once the running backward pass has ended, is of this batch alone."""
        assert self.parameter is not None
        held = self.parameter.grad
        if held is None:
            self.settle()
            return not self.in_hook
        if held is self.grad and held._version == self.version:
            return True
        self.settle()
        return False

    def settle(self) -> None:
        """``.grad`` begins anew: what it held is part of the batch's gradient, apart."""
        if self.current is not None:
            self.settled = _plus(self.settled, self.current)
        self.current = self.grad = None

    def add(self, gradient: Tensor) -> None:
        """Sum what a backward pass brought."""
        filters = reduce.by_filter(gradient.detach(), self.conv)
        self.settled = _plus(self.settled, reduce.coefficient_sum(filters))

    def read(self) -> None:
        """Sum what ``.grad`` holds."""
        assert self.parameter is not None
        grad = self.parameter.grad
        if grad is None:  # an optimizer that steps within the backward pass took it away
            self.in_hook = True
            return
        self.current = reduce.coefficient_sum(reduce.by_filter(grad, self.conv))
        self.grad, self.version = grad, grad._version

    def gradient(self) -> Tensor | None:
        """Σ|∂L/∂w| of this batch."""
        self.settle()
        return self.settled

    def norm_now(self) -> Tensor | None:
        """‖w‖ of the weight as it is."""
        weight = weight_of(self.conv)
        if weight is None:
            return None
        if self.norm is None or self.norm_version != weight._version:
            self.norm = reduce.coefficient_norm(reduce.by_filter(weight, self.conv))
            self.norm_version = weight._version
        return self.norm

    def copy(self) -> None:
        """The optimizer is about to change the weight."""
        weight = weight_of(self.conv)
        if weight is not None and self.before is None:
            self.before = weight.detach().clone()

    def stepped(self, step: OptimizerStep) -> None:
        """The optimizer has changed the weight: by how much?"""
        before, self.before = self.before, None
        self.norm = None  # a step through .data does not raise the weight's version
        weight = weight_of(self.conv)
        if weight is None:
            return
        if before is not None:
            change = reduce.by_filter(before.sub_(weight), self.conv)
            self.update, self.per_rate = reduce.coefficient_norm(change), 1.0
        elif not step.is_told:
            return
        elif weight.grad is None:  # then it has left the weight alone
            self.update = torch.zeros(self.conv.out_channels, device=weight.device)
            self.per_rate = 1.0
        else:
            momentum = step.optimizer.state[weight]["momentum_buffer"]
            self.update = reduce.coefficient_norm(reduce.by_filter(momentum, self.conv))
            self.per_rate = step.per_rate
        self.norm_after = self.norm_now()

    def took(self) -> None:
        """The optimizer has used the gradient that ``.grad`` holds now."""
        weight = weight_of(self.conv)
        grad = None if weight is None else weight.grad
        if grad is not None:
            self.used = reduce.coefficient_sum(reduce.by_filter(grad, self.conv))


class OptimizerStep:
    """The step that an optimizer makes on the weights of a parameter group."""

    def __init__(self, optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
        self.optimizer = optimizer
        self._group = group

    @functools.cached_property
    def is_told(self) -> bool:
        """Whether it is the optimizer's momentum buffer times the learning rate.

        Then ‖Δw‖ needs no copy of the weights. A fused step may be skipped on the device, unseen.
        """
        group = self._group
        return (
            type(self.optimizer) is torch.optim.SGD
            and group["momentum"] != 0
            and not group["nesterov"]
            and not group["fused"]
            and not isinstance(group["lr"], Tensor)
        )

    @functools.cached_property
    def per_rate(self) -> float:
        """What to divide the momentum's norm by."""
        return 1 / self._group["lr"] if self._group["lr"] else math.inf


class GradientReader:
    """Reads the gradients of all weights when a backward pass ends.

    Attributes:
        hooked: how many weights were met so far; another number means another weight.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.counting = False
        self.hooked = 0
        self._stopwatch = stopwatch
        self.in_hooks = False  # another party rewrites .grad at the end of the backward pass
        self._arriving: list[WeightSums] = []

    def hook(self, sums: WeightSums) -> None:
        """Have our hook on the weight that the conv has now, if it can have a gradient."""
        weight = weight_of(sums.conv)
        if weight is sums.parameter:
            return
        self.unhook(sums)
        if weight is None or not weight.requires_grad:
            return
        sums.forget()
        self.hooked += 1
        sums.parameter = weight
        sums.handle = weight.register_hook(lambda gradient: self._arrive(sums, gradient))

    def unhook(self, sums: WeightSums) -> None:
        """Remove our hook."""
        if sums.handle is not None:
            sums.handle.remove()
        sums.parameter = sums.handle = None

    def begin(self, sums: Iterable[WeightSums]) -> None:
        """Count from now on."""
        self.counting = True
        # DistributedDataParallel averages .grad over the processes, at a time of its own.
        self.in_hooks = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._arriving = []
        for each in sums:
            self.hook(each)
            each.begin()

    def end(self) -> None:
        """Count no more."""
        self.counting = False
        self._arriving = []

    def _arrive(self, sums: WeightSums, gradient: Tensor) -> None:
        if not self.counting:
            return
        sums.arrived = True
        if self.in_hooks or not sums.holds_this_batch():
            sums.add(gradient)
            return
        if not self._arriving:
            Variable._execution_engine.queue_callback(self._read)
        self._arriving.append(sums)

    def _read(self) -> None:
        arriving, self._arriving = self._arriving, []
        begin = self._stopwatch.now()
        with torch.no_grad():
            for sums in dict.fromkeys(arriving):
                sums.read()
        self._stopwatch.add("gradient", begin)


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)
