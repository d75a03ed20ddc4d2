"""Sums over the weight of a conv: its gradient, its norm, and what the optimizer made of it.

Where the forward computes the weight from other parameters, the sums are those of the weight that
it has computed (`EffectiveWeight`). Where that weight cannot be observed, as in a compiled region,
they are those of the parameter of its shape that it is computed from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.conv import expected_weight_shape, filters_first, weight_parameter
from revacnn_lightning.telemetry.recording.activation_sums import in_backward
from revacnn_lightning.telemetry.recording.effective_weight import EffectiveWeight
from revacnn_lightning.telemetry.recording.flat_buffer import Slots
from revacnn_lightning.telemetry.recording.group_step import ParameterGroupStep
from revacnn_lightning.telemetry.recording.split_weights import reduce_local_filters
from revacnn_lightning.telemetry.reductions import (
    add_to,
    filter_l1_norm,
    filter_l1_norms,
    filter_l2_norm,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["WeightSums"]


@dataclass(eq=False)
class WeightSums:
    """Sums over the weight of one conv. Tensors are (C,), sums over the K coefficients.

    Attributes:
        conv: the module.
        plain: its weight, if that is a parameter and has slots.
        columns: its filters in the `FlatBuffer`.
        slots: where the sums of a plain weight go.
        parameter: the `weight_parameter` that has our gradient hook.
        handle: the handle of that hook.
        has_gradient: whether a gradient arrived in this batch.
        is_gradient_lost: whether another gradient may have arrived that no hook has seen.
        update_norm: ‖Δw‖ of the last optimizer step, times ``update_divisor``.
        update_divisor: what to divide ``update_norm`` by.
        norm_after_step: ‖w‖ after that step.
        norm: ‖w‖ as it was last measured; None where it is unknown, or there is no weight.
        optimizer_gradient: Σ|g| of the gradient that the step used.
        norm_version: the version of the weight that has the ``norm``.
        must_sum_in_hook: whether ``.grad`` is gone after the backward pass, so that the gradient
            hook has to sum.
        finished_sum: Σ|∂L/∂w| of gradients of this batch that ``.grad`` no longer holds.
        grad_sum: Σ|∂L/∂w| of what ``.grad`` holds.
        grad: that tensor.
        grad_version: the version of ``grad`` when it was read.
        effective: the weight that the forward computes; empty where the weight is a parameter.
        is_split: whether each rank of the training has a part of it (`split_weights`).
    """

    conv: UnitLayer
    plain: Tensor | None = None
    columns: slice = field(default_factory=lambda: slice(0, 0))
    slots: Slots = field(default_factory=dict)
    parameter: Tensor | None = None
    handle: RemovableHandle | None = None
    has_gradient: bool = False
    is_gradient_lost: bool = False
    update_norm: Tensor | None = None
    update_divisor: float = 1.0
    norm_after_step: Tensor | None = None
    norm: Tensor | None = None
    optimizer_gradient: Tensor | None = None
    norm_version: int = -1
    must_sum_in_hook: bool = False
    finished_sum: Tensor | None = None
    grad_sum: Tensor | None = None
    grad: Tensor | None = None
    grad_version: int = -1
    effective: EffectiveWeight = field(default_factory=EffectiveWeight)
    is_split: bool = False
    # A copy of the weight, during an optimizer step.
    _weight_before_step: Tensor | None = None

    def begin_batch(self) -> None:
        """Discard the gradients of the previous batch."""
        self.has_gradient = self.is_gradient_lost = False
        self.finished_sum = self.grad_sum = self.grad = None
        if self.effective.is_in_use:
            self.effective.begin_batch()

    def reset(self) -> None:
        """Discard everything, because the conv has a new weight."""
        self.begin_batch()
        self.effective.reset()
        self.norm = self._weight_before_step = None
        self.update_norm = self.norm_after_step = self.optimizer_gradient = None

    # ------------------------------------------------------------------ the weight itself

    @property
    def is_computed(self) -> bool:
        """Whether a forward has computed the weight from other parameters."""
        return self.effective.value is not None

    def observe(self, weight: Tensor) -> None:
        """Receive the weight that a forward of the conv multiplies with."""
        if weight is weight_parameter(self.conv):
            if self.is_computed:
                self.reset()
            return
        if weight.shape != expected_weight_shape(self.conv):
            return
        self.effective.observe(weight, is_recomputed=in_backward())
        self.norm = None
        change, self.effective.change = self.effective.change, None
        if change is not None:
            self.update_norm = filter_l2_norm(filters_first(change, self.conv))
            self.update_divisor, self.norm_after_step = 1.0, self.current_norm()

    def current_weight(self) -> Tensor | None:
        """Return the weight as it is, or as the last forward has computed it, without graph.

        None if neither is known: before the first forward of a conv that computes its weight, and
        where it is split.
        """
        if self.is_computed:
            return self.effective.value
        if self.is_split:
            return None
        plain = self.conv._parameters.get("weight")
        is_known = plain is not None and plain is weight_parameter(self.conv)
        return plain.detach() if plain is not None and is_known else None

    def current_gradient(self) -> Tensor | None:
        """Return the gradient of `current_weight`, as the last batch has left it."""
        if self.is_computed:
            return self.effective.gradient
        weight = None if self.is_split else weight_parameter(self.conv)
        return None if weight is None else weight.grad

    # ------------------------------------------------------------------ the batch's gradient

    def has_no_unread_grad(self) -> bool:
        """Return whether ``.grad`` is empty, or holds nothing but what has been read of it."""
        assert self.parameter is not None
        grad = self.parameter.grad
        return grad is None or (grad is self.grad and grad._version == self.grad_version)

    @property
    def is_without_gradient(self) -> bool:
        """Whether ``.grad`` is empty."""
        return self.parameter is None or self.parameter.grad is None

    @property
    def is_trainable(self) -> bool:
        """Whether the weight may get a gradient."""
        return self.parameter is not None and self.parameter.requires_grad

    def prepare_read(self) -> bool:
        """Return whether ``.grad`` will hold the gradient of this batch alone.

        Called in the gradient hook, before the backward pass writes to ``.grad``.
        """
        assert self.parameter is not None
        grad = self.parameter.grad
        if grad is None:
            self._keep_sum()
            return not self.must_sum_in_hook
        if self.has_no_unread_grad():
            return True
        self._keep_sum()
        return False

    def grad_after_backward(self) -> Tensor | None:
        """Return what ``.grad`` holds after the backward pass."""
        assert self.parameter is not None
        grad = self.parameter.grad
        if grad is None:  # an optimizer that steps within the backward pass has reset it
            self.must_sum_in_hook = self.is_gradient_lost = True
        return grad

    def set_grad_sum(self, grad: Tensor, total: Tensor) -> None:
        """Set the sum over what ``.grad`` holds."""
        self.grad_sum, self.grad, self.grad_version = total, grad, grad._version

    def add_gradient(self, gradient: Tensor) -> None:
        """Sum a gradient that a backward pass produced."""
        if self.is_split:
            [total] = reduce_local_filters(filter_l1_norms, [(self.conv, gradient.detach())])
        else:
            total = filter_l1_norm(filters_first(gradient.detach(), self.conv))
        self.finished_sum = add_to(self.finished_sum, total)

    def gradient_sum(self) -> Tensor | None:
        """Return Σ|∂L/∂w| of this batch; None without a gradient."""
        if self.effective.is_observed:
            gradient = self.effective.gradient
            return None if gradient is None else filter_l1_norm(filters_first(gradient, self.conv))
        self._finish_sum()
        return self.finished_sum

    def _finish_sum(self) -> None:
        """Add the sum over ``.grad`` to the batch's, because ``.grad`` starts over."""
        if self.grad_sum is not None:
            self.finished_sum = add_to(self.finished_sum, self.grad_sum)
        self.grad_sum = self.grad = None

    def _keep_sum(self) -> None:
        """Do `_finish_sum` before the batch has ended: its next gradient overwrites the slot."""
        if self.grad_sum is not None:
            self.grad_sum = self.grad_sum.clone()
        self._finish_sum()

    # ------------------------------------------------------------------ norm and optimizer step

    def current_norm(self) -> Tensor | None:
        """Return ‖w‖ of the weight as it is or was computed; None while the conv has none."""
        weight = self.weight_of_unknown_norm()
        if weight is not None:
            self.set_norm(weight, filter_l2_norm(filters_first(weight, self.conv)))
        return self.norm

    def weight_of_unknown_norm(self) -> Tensor | None:
        """Return the weight if its present norm is unknown. Without a weight, the norm is None."""
        weight = self.effective.value if self.is_computed else weight_parameter(self.conv)
        if weight is None:
            self.norm = None
            return None
        is_known = self.norm is not None and self.norm_version == weight._version
        is_known &= not self.is_split  # the versions are those of several tensors
        return None if is_known else weight

    def set_norm(self, weight: Tensor, norm: Tensor) -> None:
        """Set the norm of the weight as it is."""
        self.norm, self.norm_version = norm, weight._version

    def copy_weight(self) -> None:
        """Copy the weight before an optimizer changes it."""
        if self.is_computed:
            self.effective.copy_before_step()
            return
        weight = weight_parameter(self.conv)
        if weight is not None and self._weight_before_step is None:
            self._weight_before_step = weight.detach().clone()

    def weight_change_in_step(self, step: ParameterGroupStep) -> Tensor | None:
        """Return Δw of an optimizer step, times ``update_divisor``; None if it is not known.

        A weight that the forward computes is measured when the next forward has computed it.
        """
        if self.is_computed:
            return None
        before, self._weight_before_step = self._weight_before_step, None
        self.norm = None  # a step through .data does not raise the weight's version
        weight = weight_parameter(self.conv)
        if weight is None:
            return None
        self.update_divisor = 1.0
        if before is not None:
            return before.sub_(weight)
        if not step.is_scaled_momentum:
            return None
        if weight.grad is None:  # the optimizer has skipped the weight
            return torch.zeros_like(weight)
        self.update_divisor = step.momentum_divisor
        momentum: Tensor = step.optimizer.state[weight]["momentum_buffer"]
        return momentum
