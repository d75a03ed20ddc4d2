"""Hooks on the convs, one flat device buffer, one copy to the host per batch.

What the hooks see is reduced at once to one number per filter (`statistics`), while the tensor is
still in the cache and before an in-place ReLU overwrites it. The sums stay on the device; the end
of the batch concatenates them and copies the result to the host, once. Scales (images,
coefficients, loss scale) are applied there.

Weight gradients come from hooks on the weights, which see what this backward pass brought, before
it is added to ``.grad`` and before clipping. Maps come from one hook on all module calls of the
process: nothing is stored in the model, so its copies, pickles and checkpoints know nothing of us.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry import statistics as reduce
from revacnn_lightning.telemetry.following import Trail, is_nonlinearity, is_norm

__all__ = ["DEFAULT", "STATISTICS", "Recorder", "Recording"]

log = logging.getLogger(__name__)

DEFAULT = ("gradient", "activation", "weight_norm", "update_ratio")
STATISTICS = DEFAULT


@dataclass
class Recording:
    """What one batch told us.

    ``values`` is float32 of shape (S, N): a row for each of ``names``, the filters of all
    ``layers`` side by side, ``widths`` of them each. NaN: not measured on this batch. The array is
    never written to again.
    """

    names: list[str]
    values: np.ndarray
    nonfinite: bool  # inf or NaN among the gradients of this batch
    layers: list[str]
    widths: list[int]


@dataclass(eq=False)
class _Layer:
    """A conv and what is known of it; the second half is of the current batch."""

    name: str
    conv: reduce.Conv
    width: int
    weight: Tensor | None = None  # the parameter that has our hook
    handle: RemovableHandle | None = None
    source: nn.Module | None = None  # the module whose output is measured; None: not known yet
    rank: int = -1  # place in the forward order; -1: not seen yet
    turn: int = -1  # when it was called first in this batch; -1: not called
    calls: int = 0
    images: int = 0  # of all calls whose map was summed
    absolute: Tensor | None = None  # Σ|a| of the conv's output
    passed_on: Tensor | None = None  # Σa of the output of the non-linearity that follows
    follower: nn.Module | None = None  # that non-linearity, and how many calls reached it
    followed: int = 0
    gradient: Tensor | None = None  # Σ|∂L/∂w|
    norm: Tensor | None = None  # ‖w‖ as of the last time it was needed
    before: Tensor | None = None  # the weight just before the optimizer steps
    update: Tensor | None = None  # ‖Δw‖/‖w‖ of the last step

    def begin(self) -> None:
        self.calls = self.images = self.followed = 0
        self.turn = -1
        self.absolute = self.passed_on = self.follower = self.gradient = self.norm = None
        self.update = None


class Recorder:
    """Statistics of every filter of every conv of a model, batch by batch.

    Args:
        model: observed from `attach` to `detach`; the model itself is never changed.
        statistics: which of `STATISTICS` to gather.
    """

    def __init__(self, model: nn.Module, *, statistics: Sequence[str] = DEFAULT) -> None:
        unknown = set(statistics) - set(STATISTICS)
        if unknown:
            raise ValueError(f"unknown statistics {sorted(unknown)}; known are {list(STATISTICS)}")
        self.names = list(statistics)
        self._model = model
        self._layers: list[_Layer] = []
        self._of_conv: dict[nn.Module, _Layer] = {}
        self._handles: list[RemovableHandle] = []
        self._trail = Trail()
        self._counting = False
        self._turns = itertools.count()
        self.follow()

    # -- what is observed ---------------------------------------------------------------------

    @property
    def layers(self) -> list[str]:
        """Names of the observed convs, in the order of their first forward."""
        return [layer.name for layer in self._layers]

    @property
    def widths(self) -> list[int]:
        """How many filters each of `layers` has."""
        return [layer.width for layer in self._layers]

    @property
    def activation_of(self) -> dict[str, str]:
        """Layer -> name of the module whose output ``activation`` sums; "" for |conv output|."""
        names = {module: name for name, module in self._model.named_modules()}
        return {
            layer.name: "" if layer.source in (None, layer.conv) else names[layer.source]
            for layer in self._layers
        }

    @property
    def observed(self) -> dict[str, bool]:
        """Layer -> whether its maps reach us."""
        return {layer.name: True for layer in self._layers}

    def attach(self) -> None:
        """Begin to observe. Does nothing if already attached."""
        if not self._handles:
            self._handles = [
                register_module_forward_hook(self._on_forward),
                register_optimizer_step_post_hook(self._on_step),
            ]

    def detach(self) -> None:
        """Remove every trace. May be called at any time, any number of times."""
        self._counting = False
        self._trail.clear()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for layer in self._layers:
            _unhook(layer)
            layer.begin()
            layer.before = None

    def follow(self) -> None:
        """Take note of a structural edit: new, removed and resized convs. Between batches only."""
        known = self._of_conv
        found = [
            (name, module)
            for name, module in self._model.named_modules()  # each module once, even when shared
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        ]
        self._of_conv = {}
        for name, conv in found:
            layer = known.pop(conv, None) or _Layer(name, conv, 0)
            layer.name, layer.width = name, conv.out_channels
            layer.begin()
            layer.source = layer.before = None
            _unhook(layer)
            self._of_conv[conv] = layer
        for layer in known.values():
            _unhook(layer)
        self._layers = _forward_order(list(self._of_conv.values()))

    # -- a batch ------------------------------------------------------------------------------

    def begin_batch(self) -> None:
        """From here to `end_batch`, forwards and backwards count."""
        self._counting = bool(self._handles)
        self._trail.clear()
        self._turns = itertools.count()
        for layer in self._layers:
            layer.begin()
            _hook(layer, self._on_gradient)

    def end_batch(self, *, grad_scale: float = 1.0) -> Recording | None:
        """Stop counting; what the batch told us.

        Args:
            grad_scale: what the loss was multiplied by before the backward pass, and with it all
                gradients: ``loss scale / accumulate_grad_batches``. It is divided out again.
        """
        if not self._counting:
            return None
        self._counting = False
        self._trail.clear()
        self.optimizer_stepped()
        self._settle_sources()
        self._settle_order()
        return self._to_host(grad_scale)

    def optimizer_stepping(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """The gradients are complete and the optimizer is about to change the weights."""
        self.optimizer_stepped()
        if not self._counting or "update_ratio" not in self.names:
            return
        mine = None if optimizer is None else _parameters(optimizer)
        for layer in self._layers:
            weight = layer.weight
            if weight is not None and (mine is None or id(weight) in mine):
                layer.before = weight.detach().clone()

    def optimizer_stepped(self) -> None:
        """The optimizer has changed the weights."""
        for layer in self._layers:
            before, layer.before = layer.before, None
            if before is None or layer.weight is None:
                continue
            after = layer.weight.detach()
            layer.norm = reduce.rows_norm(reduce.filter_rows(after, layer.conv))
            change = reduce.rows_norm(reduce.filter_rows(before.sub_(after), layer.conv))
            layer.update = change / layer.norm

    # -- hooks --------------------------------------------------------------------------------

    def _on_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not self._counting or not isinstance(output, Tensor):
            return
        layer = self._of_conv.get(module)
        if layer is not None:
            self._on_conv(layer, output)
        elif args and is_norm(module):
            owner = self._trail.take(args[0], output)
            if owner is not None:
                self._trail.mark(output, owner)
        elif args and is_nonlinearity(module):
            owner = self._trail.take(args[0], output)
            if owner is not None:
                self._on_passed_on(owner, module, output)

    def _on_conv(self, layer: _Layer, output: Tensor) -> None:
        if _in_backward():
            return  # activation checkpointing computes again what was counted already
        if not layer.calls:
            layer.turn = next(self._turns)
        _hook(layer, self._on_gradient)  # a lazy module has its weight only now
        layer.calls += 1
        if layer.source is None or layer.source is layer.conv:
            layer.absolute = _add(layer.absolute, reduce.absolute_sum(output.detach()))
            layer.images += len(output)
        if layer.source is not layer.conv:
            self._trail.mark(output, layer)

    def _on_passed_on(self, layer: _Layer, module: nn.Module, output: Tensor) -> None:
        layer.follower = module
        layer.followed += 1
        layer.passed_on = _add(layer.passed_on, reduce.map_sum(output.detach()))
        if layer.source is not None:
            layer.images += len(output)

    def _on_gradient(self, layer: _Layer, gradient: Tensor) -> None:
        if self._counting:
            rows = reduce.filter_rows(gradient.detach(), layer.conv)
            layer.gradient = _add(layer.gradient, reduce.rows_absolute_sum(rows))

    def _on_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.optimizer_stepped()

    # -- the end of a batch -------------------------------------------------------------------

    def _settle_sources(self) -> None:
        """Decide, for layers seen for the first time, what their activation is the sum of."""
        for layer in self._layers:
            if not layer.calls:
                continue
            if layer.source is None:
                every_call = layer.followed == layer.calls
                layer.source = layer.follower if every_call else layer.conv
            elif layer.source is not layer.conv and layer.followed != layer.calls:
                layer.source = None  # the network took another way: find out again
                layer.passed_on = None

    def _settle_order(self) -> None:
        """Sort by this batch's forward, if it called a layer that was not seen before."""
        if any(layer.rank < 0 <= layer.turn for layer in self._layers):
            for layer in self._layers:
                layer.rank = layer.turn
            self._layers = _forward_order(list(self._of_conv.values()))

    def _to_host(self, grad_scale: float) -> Recording:
        parts: list[Tensor] = []
        scales: list[float] = []
        for name in self.names:
            for layer in self._layers:
                value, scale = getattr(self, f"_read_{name}")(layer, grad_scale)
                parts.append(_filler(layer) if value is None else value)
                scales.append(scale)
        widths = self.widths
        flat = torch.cat(parts) if parts else torch.zeros(0)
        values = flat.cpu().numpy().reshape(len(self.names), sum(widths))
        factors = np.asarray(scales, np.float32).reshape(len(self.names), len(widths))
        values *= np.repeat(factors, widths, axis=1)
        nonfinite = False
        if "gradient" in self.names:
            measured = np.repeat([layer.gradient is not None for layer in self._layers], widths)
            row = values[self.names.index("gradient")]
            nonfinite = not np.isfinite(row[measured]).all()
        return Recording(list(self.names), values, nonfinite, self.layers, widths)

    def _read_gradient(self, layer: _Layer, grad_scale: float) -> tuple[Tensor | None, float]:
        if layer.gradient is None:
            return None, 0.0 if layer.weight is not None else np.nan
        assert layer.weight is not None
        return layer.gradient, layer.width / layer.weight.numel() / grad_scale

    def _read_activation(self, layer: _Layer, grad_scale: float) -> tuple[Tensor | None, float]:
        value = layer.absolute if layer.source is layer.conv else layer.passed_on
        if value is None or layer.images == 0:
            return None, np.nan if layer.calls else 0.0
        return value, 1 / layer.images

    def _read_weight_norm(self, layer: _Layer, grad_scale: float) -> tuple[Tensor | None, float]:
        weight = layer.conv._parameters.get("weight")
        if layer.norm is None and weight is not None and not nn.parameter.is_lazy(weight):
            layer.norm = reduce.rows_norm(reduce.filter_rows(weight.detach(), layer.conv))
        return layer.norm, 1.0 if layer.norm is not None else np.nan

    def _read_update_ratio(self, layer: _Layer, grad_scale: float) -> tuple[Tensor | None, float]:
        return layer.update, 1.0 if layer.update is not None else np.nan


def _forward_order(layers: list[_Layer]) -> list[_Layer]:
    """By first forward; a layer not seen yet stays behind its predecessor in the model."""
    rank, keyed = -1, []
    for place, layer in enumerate(layers):
        rank = layer.rank if layer.rank >= 0 else rank
        keyed.append((rank, place, layer))
    return [layer for _, _, layer in sorted(keyed, key=lambda item: item[:2])]


def _hook(layer: _Layer, on_gradient: Any) -> None:
    """Have our hook on the weight that the conv has now, if it can have a gradient."""
    weight = layer.conv._parameters.get("weight")
    if weight is layer.weight:
        return
    _unhook(layer)
    if weight is None or not weight.requires_grad or nn.parameter.is_lazy(weight):
        return
    layer.weight = weight
    layer.handle = weight.register_hook(lambda gradient: on_gradient(layer, gradient))


def _unhook(layer: _Layer) -> None:
    if layer.handle is not None:
        layer.handle.remove()
    layer.weight = layer.handle = None


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part


def _filler(layer: _Layer) -> Tensor:
    """Stands for a value that was not measured."""
    device = "cpu" if layer.weight is None else layer.weight.device
    return torch.zeros(layer.width, device=device)


def _parameters(optimizer: torch.optim.Optimizer) -> set[int]:
    groups: Iterable[dict[str, Any]] = optimizer.param_groups
    return {id(parameter) for group in groups for parameter in group["params"]}


def _in_backward() -> bool:
    """Whether autograd is running on this thread."""
    return torch._C._current_graph_task_id() != -1
