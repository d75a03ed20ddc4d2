"""Reads from the network and its optimizers which filters are dead for good (`provably_dead`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.diagnostics.provably_dead import (
    FilterAndBatchNormParameters,
    find_provably_dead,
)
from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.protocol.requests import RemoveFilters
from revacnn_lightning.runtime.batch import make_probe_without_forwards
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.execution.optimizer_state import param_groups_of
from revacnn_lightning.steering.execution.plan_queries import are_normalized_together
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.conv import filter_rows
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["ProvablyDeadFilters"]

# Their update is zero where the gradient, the first moments and the weight decay are zero.
KNOWN_OPTIMIZERS = (
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam,
    torch.optim.Adamax, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta,
)  # fmt: skip
FIRST_MOMENTS = ("momentum_buffer", "exp_avg", "grad_avg")
OTHER_NORMS = (nn.GroupNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm)

NOT_TRACED = "the network has not been traced yet"
NO_RELU = "no ReLU module follows the layer, or not alone"
COMPUTED = "its coefficients are computed from others in each forward"


class ProvablyDeadFilters:
    """Finds the filters that are provably dead for good: removing them changes no output.

    Args:
        recorder: knows what follows each layer.
        editor: knows which filters are coupled.
        get_optimizers: returns the optimizers of the training.
    """

    def __init__(
        self,
        recorder: Recorder,
        editor: Editor,
        get_optimizers: Callable[[], Sequence[Optimizer]],
    ) -> None:
        self._recorder = recorder
        self._editor = editor
        self._get_optimizers = get_optimizers

    @property
    def is_traced(self) -> bool:
        """Whether it is known which filters are coupled."""
        return self._editor.is_traced

    def find_in_layer(self, layer: str) -> tuple[list[int], str]:
        """Return a layer's filters that are provably dead, or [] and why none can be proven so.

        Filters that are coupled with others are certified only if all of them are.
        """
        dead, note = self._dead(layer)
        if note or not dead.any():
            return [], note
        return [
            index for index in np.flatnonzero(dead).tolist() if self._is_alone(layer, index)
        ], ""

    def _is_alone(self, layer: str, index: int) -> bool:
        """Return whether a removal concerns only filters that are dead for good."""
        groups = self._editor.traced_groups
        try:
            plan = self._editor.plan(RemoveFilters(layer, [index]), make_probe_without_forwards())
        except RevacnnError:  # it cannot be removed alone; the certificate holds for the value
            return True
        if groups is None or are_normalized_together(groups, plan):
            return False
        for change in plan.filter_changes:
            dead, note = self._dead(change.layer)
            if note or not dead[list(change.filters)].all():
                return False
        return True

    def _dead(self, layer: str) -> tuple[np.ndarray, str]:
        """Return which filters of a layer are dead for good, bool (C,), or why that is unknown."""
        none = np.zeros(0, bool)
        groups = self._editor.traced_groups
        if groups is None:
            return none, NOT_TRACED
        modules = self._recorder.modules_of_map(layer)
        if modules is None or not isinstance(modules[1], nn.ReLU | nn.ReLU6):
            return none, NO_RELU
        named = dict(self._editor.model.named_modules())
        conv: Any = named[layer]
        if not isinstance(conv._parameters.get("weight"), nn.Parameter):
            return none, COMPUTED
        norm: Any = None if modules[0] is conv else modules[0]
        if norm is not None:
            expected = [named.get(name) for name in groups.norm_after.get(layer, ())]
            if expected != [norm] or not isinstance(norm, nn.modules.batchnorm._BatchNorm):
                return none, NO_RELU
        return find_provably_dead(self._entries(conv, norm)), ""

    def _entries(self, conv: Any, norm: Any) -> FilterAndBatchNormParameters:
        model = self._editor.model
        weight = filter_rows(conv.weight.detach(), conv)
        is_zero = (weight == 0).all(1).cpu().numpy()
        if norm is not None and any(isinstance(each, OTHER_NORMS) for each in model.modules()):
            is_zero = np.zeros_like(is_zero)  # one of them may lie between
        tensors = [(conv, "weight"), (conv, "bias"), (norm, "weight"), (norm, "bias")]
        still = np.ones(len(weight), bool)
        for module, name in tensors:
            parameter = None if module is None else module._parameters.get(name)
            if parameter is not None:
                still &= self._is_still(conv if name == "weight" else None, module, parameter)
        entries = FilterAndBatchNormParameters(
            is_zero, _values(conv, "bias", len(weight), 0.0), still
        )
        if norm is None:
            return entries
        return FilterAndBatchNormParameters(
            is_zero, entries.bias, still,
            _values(norm, "weight", len(weight), 1.0),
            _values(norm, "bias", len(weight), 0.0),
            _values(norm, "running_mean", len(weight), 0.0),
        )  # fmt: skip

    def _is_still(self, conv: UnitLayer | None, module: Any, parameter: Tensor) -> np.ndarray:
        """Return of which entries an optimizer step changes nothing but their size, bool (C,)."""

        def rows(tensor: Tensor) -> Tensor:
            if conv is not None and module is conv:
                return filter_rows(tensor.detach(), conv)
            return tensor.detach().reshape(len(tensor), -1)

        still = torch.ones(len(rows(parameter)), dtype=torch.bool, device=parameter.device)
        if not parameter.requires_grad:
            return still.cpu().numpy()
        if parameter.grad is None or parameter.grad.is_sparse:
            return np.zeros(len(still), bool)
        still &= (rows(parameter.grad) == 0).all(1)
        for _, optimizer, group in param_groups_of(self._get_optimizers(), parameter):
            if type(optimizer) not in KNOWN_OPTIMIZERS:
                return np.zeros(len(still), bool)
            state = optimizer.state.get(parameter, {})
            for name in FIRST_MOMENTS:
                moment = state.get(name)
                if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                    still &= (rows(moment) == 0).all(1)
            still &= _decays_safely(optimizer, group) | (rows(parameter) == 0).all(1)
        return still.cpu().numpy()


def _decays_safely(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    """Return whether weight decay keeps the sign of a value whose gradient is zero.

    Decay that is added to the gradient enters the moments, and may overshoot zero.
    """
    decay = float(group.get("weight_decay", 0.0))
    is_direct = (
        isinstance(optimizer, torch.optim.AdamW)
        or bool(group.get("decoupled_weight_decay"))
        or (type(optimizer) is torch.optim.SGD and not group["momentum"])
    )
    return decay == 0 or (is_direct and decay * float(group["lr"]) <= 1)


def _values(module: Any, name: str, count: int, default: float) -> np.ndarray:
    value = module._parameters.get(name)
    value = module._buffers.get(name) if value is None else value
    if value is None:
        return np.full(count, default)
    return np.asarray(value.detach().double().cpu().numpy())
