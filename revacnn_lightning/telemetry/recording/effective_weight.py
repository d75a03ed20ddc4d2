"""The weight that a conv has computed in its last forward, and its gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

__all__ = ["EffectiveWeight"]


@dataclass(eq=False)
class EffectiveWeight:
    """The weight that a conv has computed in its last forward, and its gradient.

    Attributes:
        value: that weight, without graph; None before the first forward.
        gradient: its gradient in this batch, summed over all times that it was computed; None
            without a backward pass.
        is_observed: whether a forward of this batch has computed it.
        change: the difference to the weight before the last optimizer step, known when the forward
            after the step has computed it.
    """

    value: Tensor | None = None
    gradient: Tensor | None = None
    is_observed: bool = False
    change: Tensor | None = None
    _before_step: Tensor | None = None
    _handles: list[RemovableHandle] = field(default_factory=list)
    _origins: list[tuple[Any, int]] = field(default_factory=list)  # of the weights with a hook

    @property
    def is_in_use(self) -> bool:
        """Whether a forward has computed a weight."""
        return self.value is not None or bool(self._handles)

    def begin_batch(self) -> None:
        """Discard the gradient of the previous batch."""
        self.gradient, self.is_observed = None, False
        self.end_batch()

    def end_batch(self) -> None:
        """Remove our hooks from tensors of the user. May be called repeatedly."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._origins = [], []

    def reset(self) -> None:
        """Discard everything."""
        self.begin_batch()
        self.value = self.change = self._before_step = None

    def observe(self, weight: Tensor, *, is_recomputed: bool) -> None:
        """Receive the weight of a forward, and its gradient later.

        Args:
            weight: the weight that the forward has computed.
            is_recomputed: whether activation checkpointing runs the forward once more.
        """
        if not is_recomputed:
            self.value, self.is_observed = weight.detach(), True
            if self._before_step is not None:
                if self._before_step.shape == self.value.shape:
                    self.change = self.value - self._before_step
                self._before_step = None
        # A weight that several calls read, as generated ones and those in parametrize.cached().
        origin = (weight, 0) if weight.is_leaf else (weight.grad_fn, weight.output_nr)
        is_known = any(node is origin[0] and nr == origin[1] for node, nr in self._origins)
        if weight.requires_grad and not is_known:
            self._origins.append(origin)
            self._handles.append(weight.register_hook(self._add_gradient))

    def copy_before_step(self) -> None:
        """Copy the weight before an optimizer changes what it is computed from."""
        if self.value is not None and self._before_step is None:
            self._before_step = self.value.clone()

    def _add_gradient(self, gradient: Tensor) -> None:
        gradient = gradient.detach()
        self.gradient = gradient if self.gradient is None else self.gradient + gradient
