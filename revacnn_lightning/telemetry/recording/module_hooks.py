"""Forward hooks that receive the activation maps of all layers.

The first batch is *traced*: a hook on all modules finds the forward order and whose output is the
map of each conv. The following batches hook only the modules that matter, and check that the
network still takes the traced path. A network whose path changes from batch to batch is traced on
every batch, which costs a little more.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.recording.activation_meter import ActivationMeter
from revacnn_lightning.telemetry.recording.activation_sums import in_backward
from revacnn_lightning.telemetry.recording.activation_tracing import ActivationTrace
from revacnn_lightning.telemetry.recording.batch_hooks import BatchHooks, Hook
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.forward_tracer import ForwardTracer
from revacnn_lightning.telemetry.recording.gradient_reader import GradientReader
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.trace_result import apply_trace, check_trace

__all__ = ["ModuleHooks"]


class ModuleHooks:
    """Hooks the convs and the modules behind them.

    Args:
        batch: the batch under way.
        meter: measures the maps.
        reader: hooks weights that a forward creates.
    """

    def __init__(self, batch: BatchState, meter: ActivationMeter, reader: GradientReader) -> None:
        self._batch = batch
        self._meter = meter
        self._reader = reader
        self._global_handle: RemovableHandle | None = None  # of the hook on all modules
        self._batch_hooks = BatchHooks()
        self._trace = ActivationTrace()
        self.update_structure([])

    def update_structure(self, layers: list[ObservedLayer]) -> None:
        """Trace the network with these layers on the next batch."""
        self._layers = layers
        self._tracer = ForwardTracer(layers, self._trace, self._meter, self._reader)
        self._is_tracing = True
        self._is_dynamic = False  # some batch has left the traced path
        self._untraced: set[ObservedLayer] = set()  # called for the first time after the trace
        self._hooks: dict[nn.Module, Hook] = {}
        self._batch_hooks.uninstall()

    def attach(self) -> None:
        """Install the hooks that the next batch needs.

        Compiled regions are recompiled when hooks in them or on all modules come or go. Where
        there are any, the hook on all modules stays.
        """
        is_compiled = any(layer.is_compiled for layer in self._layers)
        only_some = not self._is_tracing and not is_compiled
        is_installed = self._batch_hooks.install(self._hooks if only_some else {})
        self._set_global_hook(not only_some or not is_installed)

    def detach(self) -> None:
        """Remove all hooks."""
        self.end_batch()
        self._batch_hooks.uninstall()
        self._set_global_hook(False)

    def begin_batch(self) -> None:
        """Enable the hooks."""
        self._tracer.begin_batch()
        self._batch_hooks.enable()

    def end_batch(self) -> None:
        """Disable the hooks. May be called repeatedly."""
        self._batch_hooks.disable()
        self._trace.clear()

    def evaluate_batch(self, layers: list[ObservedLayer]) -> list[ObservedLayer]:
        """Evaluate a traced batch, or check that the batch took the traced path.

        Returns:
            The layers in forward order.
        """
        if self._is_tracing:
            layers = apply_trace(layers)
            self._choose_hooks(layers)
        elif not check_trace(layers):
            self._is_dynamic = True
        if self._untraced:
            self._untraced = {layer for layer in self._untraced if not layer.was_called}
        must_trace = self._is_dynamic or bool(self._untraced)
        if must_trace or self._is_tracing:
            self._is_tracing = must_trace
            self.attach()
        return layers

    def _set_global_hook(self, is_needed: bool) -> None:
        """Install or remove the hook on all modules of the process."""
        if is_needed and self._global_handle is None:
            self._global_handle = register_module_forward_hook(self._on_any_forward)
        elif not is_needed and self._global_handle is not None:
            self._global_handle.remove()
            self._global_handle = None

    def _choose_hooks(self, layers: list[ObservedLayer]) -> None:
        """Choose the modules to hook after the trace."""
        self._hooks = {}
        for layer in layers:
            if not layer.was_called:
                self._hooks[layer.conv] = functools.partial(self._on_first_call, layer)
            elif layer.source is layer.conv:
                self._hooks[layer.conv] = functools.partial(self._on_conv_map, layer)
            elif layer.source is not None:
                self._hooks[layer.source] = self._on_nonlinearity
                hook = functools.partial(self._on_feeder, layer)
                self._hooks.update(dict.fromkeys(layer.feeders, hook))
        # A normalization shared by several convs does not identify the conv: trace every batch.
        if not self._tracer.shared_normalizations.isdisjoint(self._hooks):
            self._is_dynamic = True

    # ------------------------------------------------------------------ hooks

    def _on_any_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Handle a call of any module, in a traced batch or instead of hooks on some modules."""
        if is_compiling() or not self._batch.is_recording:
            return  # a hook must not enter a compiled region; see `ObservedLayer.is_compiled`
        if not self._is_tracing:
            hook = None if self._batch_hooks.is_installed else self._hooks.get(module)
            if hook is not None:
                hook(module, args, output)
        elif isinstance(output, Tensor) and output.dim() == 4:
            self._tracer.on_forward(module, args, output)

    def _on_first_call(
        self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any
    ) -> None:
        """Handle a conv that the traced batch did not call."""
        if not is_compiling():
            self._untraced.add(layer)

    def _on_conv_map(self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any) -> None:
        """Handle a conv whose own output is its map."""
        if isinstance(output, Tensor) and not is_compiling():
            self._meter.measure(layer, layer.conv_sums, output)

    def _on_feeder(self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any) -> None:
        """Handle the module, a conv or a normalization, whose output a non-linearity receives."""
        if isinstance(output, Tensor) and not is_compiling():
            layer.expected_maps += not in_backward()
            self._trace.set_owner(output, layer)

    def _on_nonlinearity(self, module: nn.Module, args: Any, output: Any) -> None:
        """Handle a non-linearity that returns the maps of one conv or of several."""
        if not args or not isinstance(output, Tensor) or is_compiling():
            return
        layer = self._trace.find_owner(args[0], output)
        if layer is not None:
            self._meter.measure(layer, layer.nonlinearity_sums, output)
