"""Measures the maps that the hooks see: at once, within the batch."""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.telemetry.inspection.layer_detail import DetailRecorder
from revacnn_lightning.telemetry.inspection.top_images import ResponseRecorder
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums, in_backward
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.statistics import MAP_GRADIENTS

__all__ = ["FINDS", "ActivationMeter"]

FINDS = "finds"  # what excites filters; is thinned out like a statistic


class ActivationMeter:
    """Sums maps and the gradients of maps into what a layer knows, and times that.

    Attributes:
        counting: whether a batch is under way; gradients that arrive later do not count.
    """

    def __init__(
        self, details: DetailRecorder, excitement: ResponseRecorder, stopwatch: Stopwatch
    ) -> None:
        self.counting = False
        self._details = details
        self._excitement = excitement
        self._stopwatch = stopwatch

    def measure(self, layer: ObservedLayer, sums: ActivationSums, maps: Tensor) -> bool:
        """A map of ``layer``, (B, C, H, W), which ``sums`` stands for.

        Returns:
            Whether it counts. It does not where activation checkpointing computes it once more,
            in the backward pass; then only its gradient is new.
        """
        wanted = layer.wanted
        if maps.requires_grad and not wanted.isdisjoint(MAP_GRADIENTS):
            self._await_gradient(wanted, sums, maps)
        if in_backward():
            return False
        if layer.source is not None and sums is layer.map:
            self._show(layer.name, maps)
        sums.seen(maps)
        firing = "firing" in wanted
        if firing or "activation" in wanted:
            begin = self._stopwatch.now()
            sums.add(maps.detach(), firing)
            self._stopwatch.add("maps", begin)
        return True

    def _show(self, layer: str, maps: Tensor) -> None:
        """Have those see the map who look at the layer, or at what excites its filters."""
        if self._details.wants_map(layer):
            self._details.saw_map(layer, maps)
        if self._excitement.wants(layer):
            begin = self._stopwatch.now()
            self._excitement.saw(layer, maps)
            self._stopwatch.add(FINDS, begin)

    def _await_gradient(self, wanted: frozenset[str], sums: ActivationSums, maps: Tensor) -> None:
        magnitude = "activation_gradient" in wanted
        per_image = "signal_to_noise" in wanted

        def arrive(gradient: Tensor) -> None:
            if self.counting:
                begin = self._stopwatch.now()
                sums.add_gradient(gradient.detach(), magnitude, per_image)
                self._stopwatch.add("map gradients", begin)

        maps.register_hook(arrive)
