"""Finds the forward order of a batch, and the module that returns each activation map."""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.telemetry.recording.activation_meter import ActivationMeter
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums
from revacnn_lightning.telemetry.recording.computed_weights import weight_computing_module
from revacnn_lightning.telemetry.recording.flattened_inputs import shape_before_flatten
from revacnn_lightning.telemetry.recording.following_nonlinearity import (
    MapOwners,
    is_nonlinearity,
    is_normalization,
)
from revacnn_lightning.telemetry.recording.gradient_reader import WeightGradientReader
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer, observe_weight
from revacnn_lightning.telemetry.split_tensors import is_distributed

__all__ = ["ModuleDiscovery"]


class ModuleDiscovery:
    """Measures the maps of a batch while it finds out which module returns them.

    Args:
        layers: the layers of the network.
        owners: tracks the maps from module to module.
        meter: measures the maps.
        reader: hooks weights that a forward creates.

    Attributes:
        shared_normalizations: normalizations that were called with maps of several convs.
    """

    def __init__(
        self,
        layers: list[ObservedLayer],
        owners: MapOwners,
        meter: ActivationMeter,
        reader: WeightGradientReader,
    ) -> None:
        self.shared_normalizations: set[nn.Module] = set()
        self._layer_of: dict[nn.Module, ObservedLayer] = {layer.conv: layer for layer in layers}
        sources = {weight_computing_module(layer.conv): layer for layer in layers}
        self._computing = {module: layer for module, layer in sources.items() if module}
        self._layer_before: dict[nn.Module, ObservedLayer | None] = {}
        self._owners = owners
        self._meter = meter
        self._reader = reader
        self._call_indices = itertools.count()

    def begin_batch(self) -> None:
        """Number the calls from 0."""
        self._call_indices = itertools.count()

    def on_forward(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """Handle a call of any module that returns a tensor."""
        if is_distributed(output):  # its operations are collectives of all ranks
            return
        computing = self._computing.get(module)
        if computing is not None:
            observe_weight(computing, module, output)
        layer = self._layer_of.get(module)
        if layer is not None:
            if isinstance(module, nn.Linear) and args:
                layer.input_shape = shape_before_flatten(args[0])
            self._owners.set_owner(output, (layer, module))
            self._measure(layer, layer.conv_sums, output)
        elif args and is_normalization(module):
            layer, _ = self._owners.find_owner(args[0], output) or (None, None)
            if self._layer_before.setdefault(module, layer) is not layer:
                self.shared_normalizations.add(module)
            if layer is not None:
                self._owners.set_owner(output, (layer, module))
        elif args and is_nonlinearity(module):
            layer, preactivation = self._owners.find_owner(args[0], output) or (None, None)
            if layer is not None:
                layer.nonlinearity = module
                layer.preactivation_modules.add(preactivation)
                self._measure(layer, layer.nonlinearity_sums, output)

    def _measure(self, layer: ObservedLayer, sums: ActivationSums, output: Tensor) -> None:
        if self._meter.measure(layer, sums, output) and layer.call_index < 0:
            layer.call_index = next(self._call_indices)
            self._reader.hook(layer.weights)  # the weight of a lazy conv exists only now
