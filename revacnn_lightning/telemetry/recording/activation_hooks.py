"""Forward hooks that receive the activation maps of all layers, and hooks for their gradients.

In the first batch, the *discovery batch*, a hook on all modules finds the forward order and the
module that returns the map of each conv. The following batches hook only the modules that matter,
with hooks specialized for this path (`specialized_hooks`), and check that the network still takes
it. If its path changes from batch to batch, every batch is a discovery batch, which costs
more.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.recording.activation_meter import ActivationMeter
from revacnn_lightning.telemetry.recording.activation_sums import in_backward
from revacnn_lightning.telemetry.recording.batch_hooks import BatchHooks, Hook
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.computed_weights import weight_computing_module
from revacnn_lightning.telemetry.recording.discovery_result import (
    evaluate_discovery_batch,
    has_lost_maps,
    log_compiled_layers,
    mark_lost_maps,
)
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.recording.following_nonlinearity import MapOwners
from revacnn_lightning.telemetry.recording.gradient_reader import WeightGradientReader
from revacnn_lightning.telemetry.recording.hook_specializer import HookSpecializer
from revacnn_lightning.telemetry.recording.module_discovery import ModuleDiscovery
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer, observe_weight
from revacnn_lightning.telemetry.recording.per_image_sums import PerImageSums
from revacnn_lightning.telemetry.recording.timing import Stopwatch

__all__ = ["ActivationHooks"]


class ActivationHooks:
    """Hooks the convs and the modules behind them.

    Args:
        batch: the batch under way.
        meter: measures the maps.
        reader: hooks weights that a forward creates.
        stopwatch: measures the cost.

    Attributes:
        per_image_sums: the sums of each image of the batch, if they have slots, by statistic.
    """

    def __init__(
        self,
        batch: BatchState,
        meter: ActivationMeter,
        reader: WeightGradientReader,
        stopwatch: Stopwatch,
    ) -> None:
        self._batch = batch
        self._meter = meter
        self._reader = reader
        self._stopwatch = stopwatch
        self.per_image_sums: Mapping[str, PerImageSums] = {}
        self._global_handle: RemovableHandle | None = None  # of the hook on all modules
        self._needs_global_hook = False  # in the next batch
        self._batch_hooks = BatchHooks()
        self._specializer = HookSpecializer(batch, meter, stopwatch, self._batch_hooks)
        self._owners = MapOwners()
        self._has_logged_compiled = False  # once per run, not after every edit
        self.update_structure([])

    def update_structure(self, layers: list[ObservedLayer]) -> None:
        """Make the next batch a discovery batch, for these layers."""
        self._layers = layers
        self._discovery = ModuleDiscovery(layers, self._owners, self._meter, self._reader)
        self._is_discovering = True
        self._is_dynamic = False  # some batch has left the discovered path
        self._has_replicas = False  # which have the attributes of the modules that they copy
        self._undiscovered: set[ObservedLayer] = set()  # first called after the discovery
        self._hooks: dict[nn.Module, Hook] = {}
        self._batch_hooks.uninstall()
        self._specializer.reset()
        self._computing = self._find_computing()

    def _find_computing(self) -> list[nn.Module | None]:
        """Return the modules that compute the weights."""
        return [weight_computing_module(layer.conv) for layer in self._layers]

    def use_buffer(self, buffer: FlatBuffer) -> None:
        """Use the slots of this buffer, because some layers have new weights."""
        self._specializer.buffer = buffer
        self._specializer.reset()
        if self._find_computing() != self._computing:
            self.update_structure(self._layers)  # some weight is computed now, or no longer
            self.attach()

    def attach(self) -> None:
        """Install the hooks that the next batch needs.

        Compiled regions are recompiled when hooks in them or on all modules come or go. Where
        there are any, the hook on all modules stays.
        """
        self._specializer.reset()
        only_some = not (self._is_discovering or self._is_compiled or self._has_replicas)
        is_installed = self._batch_hooks.install(self._hooks if only_some else {})
        self._needs_global_hook = not only_some or not is_installed
        self._set_global_hook(self._needs_global_hook)

    @property
    def _is_compiled(self) -> bool:
        """Whether some layer runs in a compiled region."""
        return any(layer.is_compiled for layer in self._layers)

    def suspend(self) -> None:
        """Remove the hook on all modules, which slows each call of one, until the next batch.

        Hooks on some modules need not be removed: they exist during batches only.
        """
        if not self._is_compiled:
            self._set_global_hook(False)

    def detach(self) -> None:
        """Remove all hooks."""
        self.end_batch()
        self._batch_hooks.uninstall()
        self._set_global_hook(False)

    def begin_batch(self) -> None:
        """Enable the hooks."""
        self._set_global_hook(self._needs_global_hook)
        self._discovery.begin_batch()
        if not self._batch_hooks.is_installed:
            self._batch.reducers, self.per_image_sums = {}, {}
            return
        specialized = self._specializer.specialize(self._layers, self._hooks)
        self._batch.reducers = specialized.reducers
        self.per_image_sums = specialized.per_image_sums
        self._batch_hooks.enable(
            specialized.timed_hooks if self._stopwatch.is_timing else specialized.hooks
        )

    def end_batch(self) -> None:
        """Disable the hooks. May be called repeatedly."""
        self._batch_hooks.disable()
        self._owners.clear()
        self._specializer.end_batch()

    def evaluate_batch(self, layers: list[ObservedLayer]) -> list[ObservedLayer]:
        """Evaluate a discovery batch, or check that the batch took the discovered path.

        Returns:
            The layers in forward order.
        """
        if self._is_discovering:
            layers = evaluate_discovery_batch(layers)
            if not self._has_logged_compiled:
                log_compiled_layers(layers)
                self._has_logged_compiled = any(layer.is_compiled for layer in layers)
            self._choose_hooks(layers)
        else:
            mark_lost_maps(layers)
            self._is_dynamic = self._is_dynamic or has_lost_maps(layers)
        if self._undiscovered:
            self._undiscovered = {layer for layer in self._undiscovered if not layer.was_called}
        must_discover = self._is_dynamic or bool(self._undiscovered)
        if must_discover or self._is_discovering:
            self._is_discovering = must_discover
            self.attach()
        return layers

    @property
    def is_settled(self) -> bool:
        """Whether the batch need not be evaluated if it was like the previous one."""
        return not self._is_discovering and not self._undiscovered

    def _set_global_hook(self, is_needed: bool) -> None:
        """Install or remove the hook on all modules of the process."""
        if is_needed and self._global_handle is None:
            self._global_handle = register_module_forward_hook(self._on_any_forward)
        elif not is_needed and self._global_handle is not None:
            self._global_handle.remove()
            self._global_handle = None

    def _choose_hooks(self, layers: list[ObservedLayer]) -> None:
        """Choose the modules to hook after the discovery."""
        self._hooks = {}
        for layer in layers:
            if not layer.was_called:
                self._hooks[layer.conv] = functools.partial(self._on_first_call, layer)
            elif layer.source is layer.conv:
                self._hooks[layer.conv] = functools.partial(self._on_conv_map, layer)
            elif layer.source is not None:
                self._hooks[layer.source] = self._on_nonlinearity
                hook = functools.partial(self._on_preactivation, layer)
                self._hooks.update(dict.fromkeys(layer.preactivation_modules, hook))
        for layer in layers:
            source = weight_computing_module(layer.conv) if layer.was_called else None
            if source is not None:
                hook = functools.partial(self._on_weight, layer, self._hooks.get(source))
                self._hooks[source] = hook
        self._hooks = {module: self._batch.guarded(hook) for module, hook in self._hooks.items()}
        # A shared normalization does not identify the conv: every batch is a discovery batch.
        if not self._discovery.shared_normalizations.isdisjoint(self._hooks):
            self._is_dynamic = True

    # ------------------------------------------------------------------ hooks

    def _on_any_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Handle a call of any module, in a discovery batch or instead of hooks on some modules."""
        if is_compiling() or not self._batch.is_recording:
            return  # a hook must not enter a compiled region; see `ObservedLayer.is_compiled`
        self._has_replicas |= isinstance(module, nn.DataParallel)
        if not self._is_discovering:
            hook = None if self._batch_hooks.is_installed else self._hooks.get(module)
            if hook is not None:
                hook(module, args, output)
        elif isinstance(output, Tensor):
            self._batch.guarded(self._discovery.on_forward)(module, args, output)

    def _on_first_call(
        self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any
    ) -> None:
        """Handle a conv that the discovery batch did not call."""
        if not is_compiling():
            self._batch.is_regular = False
            self._undiscovered.add(layer)

    def _on_weight(
        self, layer: ObservedLayer, hook: Hook | None, module: nn.Module, args: Any, output: Any
    ) -> None:
        """Handle a module that shows the weight of a conv; ``hook`` is its other hook, if any."""
        if not is_compiling():
            self._batch.is_regular = False
            observe_weight(layer, module, output)
        if hook is not None:
            hook(module, args, output)

    def _on_conv_map(self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any) -> None:
        """Handle a conv whose own output is its map."""
        if isinstance(output, Tensor) and not is_compiling():
            self._meter.measure(layer, layer.conv_sums, output)

    def _on_preactivation(
        self, layer: ObservedLayer, module: nn.Module, args: Any, output: Any
    ) -> None:
        """Handle the module, a conv or a normalization, whose output a non-linearity receives."""
        if isinstance(output, Tensor) and not is_compiling():
            if not in_backward():
                self._batch.prepare_sums(layer)
                layer.expected_maps += 1
            self._owners.set_owner(output, layer)

    def _on_nonlinearity(self, module: nn.Module, args: Any, output: Any) -> None:
        """Handle a non-linearity that returns the maps of one conv or of several."""
        if not args or not isinstance(output, Tensor) or is_compiling():
            return
        layer = self._owners.find_owner(args[0], output)
        if layer is not None:
            self._meter.measure(layer, layer.nonlinearity_sums, output)
