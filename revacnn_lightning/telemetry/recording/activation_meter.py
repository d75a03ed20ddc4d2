"""Reduces the activation maps that the hooks receive, within the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from revacnn_lightning.telemetry.inspection.layer_detail import DetailRecorder
from revacnn_lightning.telemetry.inspection.responses import ResponseRecorder
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums, in_backward
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.sampling_schedule import TOP_IMAGES
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.statistics import MAP_GRADIENT_STATISTICS

__all__ = ["ActivationMeter"]


class ActivationMeter:
    """Sums activation maps and their gradients, and measures what that costs.

    Args:
        batch: the batch under way.
        stopwatch: measures the cost.
        details: receives the maps of inspected layers.
        responses: receives the maps of inspected filters.
    """

    def __init__(
        self,
        batch: BatchState,
        stopwatch: Stopwatch,
        details: DetailRecorder,
        responses: ResponseRecorder,
    ) -> None:
        self._batch = batch
        self._stopwatch = stopwatch
        self._details = details
        self._responses = responses

    @property
    def needs_maps(self) -> frozenset[str]:
        """The layers whose maps are inspected."""
        return self._details.layers | self._responses.layers

    def measure(self, layer: ObservedLayer, sums: ActivationSums, maps: Tensor) -> bool:
        """Add a map (B, C, H, W) of ``layer`` to ``sums``, one of its two.

        Returns:
            Whether the map counts. It does not where activation checkpointing recomputes it in the
            backward pass; only its gradient is new then.
        """
        if type(maps) is Tensor:
            return self._measure(layer, sums, maps)
        with torch._C.DisableTorchFunctionSubclass():  # our operations are none of the model's
            return self._measure(layer, sums, maps)

    def _measure(self, layer: ObservedLayer, sums: ActivationSums, maps: Tensor) -> bool:
        sampled = self._batch.sampled(layer.name)
        if maps.requires_grad and not sampled.isdisjoint(MAP_GRADIENT_STATISTICS):
            maps.register_hook(self.gradient_hook(layer, sums, sampled))
        if in_backward():
            return False
        self._batch.touch(layer)
        if layer.source is not None and sums is layer.map_sums:
            self._inspect(layer.name, maps)
        if not sums.calls:
            self._note_shape(sums, maps)
        sums.count(maps.shape)
        count_positive = "firing" in sampled
        if count_positive or "activation" in sampled:
            start = self._stopwatch.now()
            sums.add(maps.detach(), count_positive)
            self._stopwatch.add("maps", start)
        return True

    def _note_shape(self, sums: ActivationSums, maps: Tensor) -> None:
        """Note what the hooks of the next batch are compiled for."""
        shape = maps.shape if type(maps) is Tensor else None
        if (shape, maps.dtype) != (sums.shape, sums.dtype):
            sums.shape, sums.dtype = shape, maps.dtype
            self._batch.must_compile = True

    def _inspect(self, layer: str, maps: Tensor) -> None:
        """Hand the map to the inspections of the layer and of its filters."""
        if self._details.needs_map(layer):
            self._details.add_map(layer, maps)
        if self._responses.needs_map(layer):
            start = self._stopwatch.now()
            self._responses.add_map(layer, maps)
            self._stopwatch.add(TOP_IMAGES, start)

    def gradient_hook(
        self, layer: ObservedLayer, sums: ActivationSums, sampled: frozenset[str]
    ) -> Callable[[Tensor], None]:
        """Return a hook that sums the gradients of a map."""
        magnitude = "activation_gradient" in sampled
        per_image = "signal_to_noise" in sampled

        def on_gradient(gradient: Tensor) -> None:
            if self._batch.is_recording:
                self._batch.touch(layer)
                start = self._stopwatch.now()
                sums.add_gradient(gradient.detach(), magnitude, per_image)
                self._stopwatch.add("map gradients", start)

        return self._batch.guarded(on_gradient)
