"""Which module calls matter: found out in a traced batch, relied on afterwards, and checked.

The first batch is *traced*: every module call is looked at, to learn the forward order and whose
output is the map of each conv. The batches after it hear only the modules that matter, and see
whether the network still takes the way that was traced. One that takes another way from batch to
batch is traced on every batch, which costs a little more.
"""

from __future__ import annotations

import functools
import itertools
import logging
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.recording.activation_meter import ActivationMeter
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums, in_backward
from revacnn_lightning.telemetry.recording.activation_tracing import (
    ActivationTrace,
    is_nonlinearity,
    is_normalization,
)
from revacnn_lightning.telemetry.recording.batch_hooks import BatchHooks, Hook
from revacnn_lightning.telemetry.recording.observed_layer import (
    ObservedLayer,
    forward_order,
    settle_source,
)
from revacnn_lightning.telemetry.recording.weight_sums import GradientReader

__all__ = ["ModuleHooks"]

log = logging.getLogger(__name__)


class ModuleHooks:
    """Hears the forwards of the convs and of what follows them.

    Args:
        meter: measures the maps.
        reader: reads the weights' gradients; told of weights that come into being in a forward.
    """

    def __init__(self, meter: ActivationMeter, reader: GradientReader) -> None:
        self._meter = meter
        self._reader = reader
        self._handle: RemovableHandle | None = None  # of the hook on all modules
        self._taps = BatchHooks()
        self._trail = ActivationTrace()
        self._counting = False
        self.follow([])

    def follow(self, layers: list[ObservedLayer]) -> None:
        """The network is this one now: trace it."""
        self._of_conv: dict[nn.Module, ObservedLayer] = {layer.conv: layer for layer in layers}
        self._tracing = True
        self._restless = False  # the network has taken another way than the trace
        self._awaited: set[ObservedLayer] = (
            set()
        )  # called outside of a trace, and not traced so far
        self._norms: dict[nn.Module, ObservedLayer | None] = {}
        self._mixed: set[nn.Module] = set()  # norms that are not of one conv alone
        self._hooks: dict[nn.Module, Hook] = {}
        self._taps.clear()

    def attach(self) -> None:
        """Be ready to listen."""
        self._listen()

    def detach(self) -> None:
        """Leave no hook anywhere."""
        self.end()
        self._taps.clear()
        self._hear_all(False)

    def begin(self) -> None:
        """A batch begins."""
        self._turns = itertools.count()
        self._counting = True
        self._taps.open()

    def end(self) -> None:
        """The batch is over. May be called again."""
        self._counting = False
        self._taps.close()
        self._trail.clear()

    def settle(self, layers: list[ObservedLayer]) -> list[ObservedLayer]:
        """Draw the conclusions of a traced batch, or see whether the trace still holds.

        Returns:
            The layers, in forward order.
        """
        if self._tracing:
            for layer in layers:
                settle_source(layer)
            layers = _in_order(layers)
            _settle_hidden(layers)
            self._choose(layers)
        elif not _as_traced(layers):
            self._restless = True
        if self._awaited:
            self._awaited = {layer for layer in self._awaited if not layer.seen}
        tracing = self._restless or bool(self._awaited)
        if tracing or self._tracing:
            self._tracing = tracing
            self._listen()
        return layers

    def _listen(self) -> None:
        """Have the hooks that are needed now.

        Regions are compiled anew where hooks come or go in them or on all modules: where there are
        any, the hook on all modules stays.
        """
        compiled = any(layer.hidden for layer in self._of_conv.values())
        few = not self._tracing and not compiled
        self._hear_all(not self._taps.set(self._hooks if few else {}) or not few)

    def _hear_all(self, wanted: bool) -> None:
        """Have a hook on all modules of the process, or have none."""
        if wanted and self._handle is None:
            self._handle = register_module_forward_hook(self._on_forward)
        elif not wanted and self._handle is not None:
            self._handle.remove()
            self._handle = None

    # ------------------------------------------------------------------ while it is traced

    def _on_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """A call of any module."""
        if is_compiling() or not self._counting:
            return  # a compiled region leaves us out; `ObservedLayer.hidden` says so
        if not self._tracing:
            hook = None if self._taps.are_set else self._hooks.get(module)
            if hook is not None:
                hook(module, args, output)
        elif isinstance(output, Tensor) and output.dim() == 4:
            self._trace(module, args, output)

    def _trace(self, module: nn.Module, args: Any, output: Tensor) -> None:
        layer = self._of_conv.get(module)
        if layer is not None:
            self._trail.mark(output, (layer, module))
            self._measure_traced(layer, layer.own, output)
        elif args and is_normalization(module):
            layer, _ = self._trail.take(args[0], output) or (None, None)
            if self._norms.setdefault(module, layer) is not layer:
                self._mixed.add(module)
            if layer is not None:
                self._trail.mark(output, (layer, module))
        elif args and is_nonlinearity(module):
            layer, feeder = self._trail.take(args[0], output) or (None, None)
            if layer is not None:
                layer.follower = module
                layer.feeders.add(feeder)
                self._measure_traced(layer, layer.passed_on, output)

    def _measure_traced(self, layer: ObservedLayer, sums: ActivationSums, output: Tensor) -> None:
        if self._meter.measure(layer, sums, output) and layer.turn < 0:
            layer.turn = next(self._turns)
            self._reader.hook(layer.weights)  # a lazy conv has its weight only now

    # ------------------------------------------------------------------ once it is traced

    def _choose(self, layers: list[ObservedLayer]) -> None:
        """Which modules to listen to from now on."""
        self._hooks = {}
        for layer in layers:
            if not layer.seen:
                self._hooks[layer.conv] = functools.partial(self._on_first_call, layer)
            elif layer.source is layer.conv:
                self._hooks[layer.conv] = functools.partial(self._on_own_map, layer)
            elif layer.source is not None:
                self._hooks[layer.source] = self._on_passed_on
                feeder = functools.partial(self._on_feeder, layer)
                self._hooks.update(dict.fromkeys(layer.feeders, feeder))
        self._restless = self._restless or not self._mixed.isdisjoint(self._hooks)

    def _on_first_call(
        self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any
    ) -> None:
        """Of a conv that the trace did not come by."""
        if not is_compiling():
            self._awaited.add(layer)

    def _on_own_map(self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any) -> None:
        """Of a conv whose own output is its map."""
        if isinstance(output, Tensor) and not is_compiling():
            self._meter.measure(layer, layer.own, output)

    def _on_feeder(self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any) -> None:
        """Of a conv, or of the norm behind it, that hands its map to a non-linearity."""
        if isinstance(output, Tensor) and not is_compiling():
            layer.marks += not in_backward()
            self._trail.mark(output, layer)

    def _on_passed_on(self, module: nn.Module, args: Any, output: Any) -> None:
        """Of a non-linearity that makes maps, of one conv or of several."""
        if not args or not isinstance(output, Tensor) or is_compiling():
            return
        layer = self._trail.take(args[0], output)
        if layer is not None:
            self._meter.measure(layer, layer.passed_on, output)


def _in_order(layers: list[ObservedLayer]) -> list[ObservedLayer]:
    """By this batch's forward, if it called a layer that was not seen before."""
    if not any(layer.turn >= 0 and not layer.seen for layer in layers):
        return layers
    for layer in layers:
        layer.rank = layer.turn
        layer.seen = layer.seen or layer.turn >= 0
    return forward_order(sorted(layers, key=lambda layer: layer.place))


def _settle_hidden(layers: list[ObservedLayer]) -> None:
    """Layers that got a gradient without having been called run where no hook does."""
    unseen = [layer for layer in layers if not layer.seen]
    compiled = any(layer.weights.arrived for layer in unseen)
    newly = [layer for layer in unseen if compiled and not layer.hidden]
    for layer in layers:
        layer.hidden = compiled and layer in unseen
    if newly:
        log.warning(
            "The activation maps of %s are not observed: they run in a compiled region "
            "(torch.compile, torch.jit), where no hook is called. Their weights are.",
            ", ".join(layer.name for layer in newly),
        )


def _as_traced(layers: list[ObservedLayer]) -> bool:
    """Whether the network took the way that was traced; maps that it missed are lost."""
    holds = True
    for layer in layers:
        sums = layer.map
        missed = layer.weights.arrived and not sums.calls and not layer.hidden
        strayed = layer.source is not layer.conv and layer.marks != sums.calls
        sums.lost = missed or strayed
        holds = holds and not (sums.lost and layer.seen)
    return holds
