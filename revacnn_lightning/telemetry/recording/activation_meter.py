"""Reduces the activation maps that the hooks receive, within the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from revacnn_lightning.telemetry.inspection.activation_samples import ActivationSampleRecorder
from revacnn_lightning.telemetry.inspection.layer_detail import DetailRecorder
from revacnn_lightning.telemetry.inspection.pooled_maps import PooledMapRecorder
from revacnn_lightning.telemetry.inspection.responses import ResponseRecorder
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums, in_backward
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.price_hooks import PriceHooks
from revacnn_lightning.telemetry.recording.sampling_schedule import CLASSES, TOP_IMAGES
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.statistics import SUMMED_GRADIENT_STATISTICS
from revacnn_lightning.telemetry.unit_layers import to_maps, to_maps_or_raise

__all__ = ["ActivationMeter"]


class ActivationMeter:
    """Sums activation maps and their gradients, and measures what that costs.

    Args:
        batch: the batch under way.
        stopwatch: measures the cost.
        details: receives the maps of inspected layers.
        responses: receives the maps of inspected filters.
        activation_samples: receives the maps of the layer that is examined.
        pooled_maps: receives the maps of layers whose classes are inspected.

    Attributes:
        price_hooks: makes the hooks of the statistic ``price``.
    """

    def __init__(
        self,
        batch: BatchState,
        stopwatch: Stopwatch,
        details: DetailRecorder,
        responses: ResponseRecorder,
        activation_samples: ActivationSampleRecorder,
        pooled_maps: PooledMapRecorder,
    ) -> None:
        self.price_hooks = PriceHooks(batch, stopwatch)
        self._batch = batch
        self._stopwatch = stopwatch
        self._details = details
        self._responses = responses
        self._activation_samples = activation_samples
        self._pooled_maps = pooled_maps

    @property
    def inspected_layers(self) -> frozenset[str]:
        """The layers whose maps are inspected in this batch."""
        inspected = self._details.layers | self._responses.layers | self._activation_samples.layers
        return inspected | self._pooled_maps.sampled_layers

    def measure(self, layer: ObservedLayer, sums: ActivationSums, output: Tensor) -> bool:
        """Add the maps that ``output`` holds of ``layer`` to ``sums``, one of its two.

        Returns:
            Whether they count. They do not where activation checkpointing recomputes them in the
            backward pass, where only their gradient is new, and where the output has another number
            of dimensions than the layer returns.
        """
        if type(output) is Tensor:
            return self._measure(layer, sums, output)
        with torch._C.DisableTorchFunctionSubclass():  # our operations are none of the model's
            return self._measure(layer, sums, output)

    def _measure(self, layer: ObservedLayer, sums: ActivationSums, output: Tensor) -> bool:
        maps = to_maps(layer.conv, output)
        if maps is None:
            return False
        sampled = self._batch.sampled_statistics(layer.name)
        if output.requires_grad and not sampled.isdisjoint(SUMMED_GRADIENT_STATISTICS):
            output.register_hook(self.gradient_hook(layer, sums, sampled))
        if output.requires_grad and "price" in sampled:
            output.register_hook(self.price_hooks.general_hook(layer, sums, output))
        if in_backward():
            return False
        self._batch.prepare_sums(layer)
        if layer.source is not None and sums is layer.map_sums:
            self._inspect(layer, output, maps)
        if not sums.calls:
            self._note_shape(sums, output, maps)
        sums.count(maps.shape)
        count_positive = "firing" in sampled
        if count_positive or "activation" in sampled:
            start = self._stopwatch.now()
            sums.add(maps.detach(), count_positive)
            self._stopwatch.add("maps", start)
        return True

    def _note_shape(self, sums: ActivationSums, output: Tensor, maps: Tensor) -> None:
        """Note what the hooks of the next batch are specialized for."""
        output_shape = output.shape if type(output) is Tensor else None
        if (output_shape, maps.dtype) != (sums.output_shape, sums.dtype):
            sums.output_shape, sums.shape, sums.dtype = output_shape, maps.shape, maps.dtype
            self._batch.must_specialize = True

    def _inspect(self, layer: ObservedLayer, output: Tensor, maps: Tensor) -> None:
        """Hand the maps to the inspections of the layer and of its filters."""
        if self._details.needs_map(layer.name):
            self._details.add_map(layer.name, layer.conv, output)
        if self._responses.needs_map(layer.name):
            start = self._stopwatch.now()
            self._responses.add_map(layer.name, maps)
            self._stopwatch.add(TOP_IMAGES, start)
        if self._activation_samples.needs_map(layer.name):
            self._activation_samples.add_map(maps)
        if self._pooled_maps.needs_map(layer.name):
            self._pool(layer, output, maps)

    def _pool(self, layer: ObservedLayer, output: Tensor, maps: Tensor) -> None:
        """Pool the maps, and later their gradients."""
        start = self._stopwatch.now()
        self._pooled_maps.add_map(layer.name, maps)
        self._stopwatch.add(CLASSES, start)

        def on_gradient(gradient: Tensor) -> None:
            start = self._stopwatch.now()
            self._pooled_maps.add_gradient(layer.name, layer.conv, gradient)
            self._stopwatch.add(CLASSES, start)

        if output.requires_grad and self._pooled_maps.needs_gradient(layer.name):
            output.register_hook(self._batch.guarded(on_gradient))

    def gradient_hook(
        self, layer: ObservedLayer, sums: ActivationSums, sampled: frozenset[str]
    ) -> Callable[[Tensor], None]:
        """Return a hook that sums the gradients of what a layer returned."""
        magnitude = "activation_gradient" in sampled
        per_image = "signal_to_noise" in sampled

        def on_gradient(gradient: Tensor) -> None:
            self._batch.prepare_sums(layer)
            start = self._stopwatch.now()
            maps = to_maps_or_raise(layer.conv, gradient.detach())
            sums.add_gradient(maps, magnitude, per_image)
            self._stopwatch.add("map gradients", start)

        return self._batch.guarded(on_gradient)
