"""Samples of inspected layers: coefficients, gradients and activation maps, a few times a second.

Everything is reduced on the training device and sent as float16: the weight of a 512×512×3×3 layer
is 9 MB of float32, its sample about 300 KB. Layers that no viewer has open cost nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from revacnn_lightning.telemetry.conv import filter_rows
from revacnn_lightning.telemetry.inspection.activation_maps import compute_activation_maps
from revacnn_lightning.telemetry.inspection.downsampling import project_rows_randomly
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half
from revacnn_lightning.telemetry.inspection.histograms import (
    ValueHistogram,
    histogram_of,
    sample_values,
)
from revacnn_lightning.telemetry.inspection.inspected_layer import InspectedLayer
from revacnn_lightning.telemetry.inspection.map_images import MIDDLE
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["DETAIL_HZ", "DetailRecorder", "DetailSample"]

log = logging.getLogger(__name__)

DETAIL_HZ = 2.0  # samples of a layer per second, at most
EXPIRY_SECONDS = 10.0  # a layer counts as closed this long after it was last opened


@dataclass
class DetailSample:
    """An inspected layer after a batch. Arrays are float16 and at most 1 in magnitude.

    Attributes:
        layer: name of the conv, which has C filters with K coefficients each.
        coefficients: (C, D), D = min(K, 64): the coefficients or, where there are more than 64,
            a random projection that preserves distances between filters. The projection is the
            same on every batch and for every layer with the same K.
        gradients: (C, D) of the coefficients' gradients; None where there are none, as in a frozen
            layer. Of this batch, or a moving average over about 20 batches.
        maps: (C, h, w), the downsampled activation maps of one image.
        map_gradients: (C, h, w), the gradients of the loss with respect to the maps; None for a
            pinned image, which has no loss.
        weight_histogram: histogram of the coefficients.
        gradient_histogram: histogram of this batch's ∂L/∂w; None without one, and while paused.
    """

    layer: str
    coefficients: np.ndarray
    gradients: np.ndarray | None = None
    maps: np.ndarray | None = None
    map_gradients: np.ndarray | None = None
    weight_histogram: ValueHistogram | None = None
    gradient_histogram: ValueHistogram | None = None


class DetailRecorder:
    """Samples the layers that are open.

    Args:
        batch: the batch under way.
        max_hz: upper bound of samples per second and layer, whatever `open` asks for.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        batch: BatchState,
        *,
        max_hz: float = DETAIL_HZ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batch = batch
        self._max_hz = max_hz
        self._clock = clock
        self._open: dict[str, InspectedLayer] = {}
        self._image: Tensor | None = None
        self._forward: Callable[[Tensor], Any] | None = None

    @property
    def layers(self) -> frozenset[str]:
        """The layers that are open."""
        return frozenset(self._open)

    def open(
        self,
        layer: str,
        *,
        hz: float = DETAIL_HZ,
        smoothed: bool = False,
        depth: float = MIDDLE,
    ) -> None:
        """Open a layer for the next `EXPIRY_SECONDS`, or renew that.

        Args:
            layer: the name of the layer.
            hz: samples per second.
            smoothed: sample the moving average of the gradients instead of those of one batch.
            depth: which slice of volumes to sample, from 0 for the first to 1 for the last.
        """
        inspected = self._open.setdefault(layer, InspectedLayer(self._batch))
        inspected.max_hz, inspected.smoothed = min(hz, self._max_hz), smoothed
        inspected.depth = depth
        inspected.expires_at = self._clock() + EXPIRY_SECONDS

    def close_all(self) -> None:
        """Close all layers."""
        for layer in list(self._open):
            self._close(layer)

    def pin_image(
        self, image: Tensor | None, forward: Callable[[Tensor], Any] | None = None
    ) -> None:
        """Sample the maps of ``image`` (channels, H, W); None: of the first image of each batch.

        ``forward`` passes a batch of one image through the model; by default the model itself.
        """
        self._image, self._forward = image, forward

    def begin_batch(self, weights: dict[str, WeightSums]) -> None:
        """Close layers that have expired or are not among these, and prepare the others."""
        now = self._clock()
        for name, layer in list(self._open.items()):
            if name not in weights or layer.expires_at <= now:
                self._close(name)
            else:
                layer.begin_batch(weights[name], now)

    def needs_map(self, layer: str) -> bool:
        """Return whether this batch's sample of ``layer`` needs `add_map`."""
        inspected = self._open.get(layer)
        return inspected is not None and inspected.is_due and self._image is None

    def add_map(self, layer: str, conv: UnitLayer, output: Tensor) -> None:
        """Receive what the layer returned for a batch. The maps of the first image count."""
        self._open[layer].add_map(conv, output)

    def end_batch(
        self,
        model: nn.Module,
        weights: dict[str, WeightSums],
        gradient_scale: Tensor | float = 1.0,
    ) -> list[DetailSample]:
        """Return the samples that are due. Synchronizes with the device if there are any.

        ``gradient_scale`` is what the loss, and with it all gradients, was multiplied by.
        """
        for name, layer in self._open.items():
            layer.end_batch(weights[name])
        due = {name: weights[name] for name, layer in self._open.items() if layer.is_due}
        maps = self._maps_of(model, self._image, due, self._forward)
        samples = [self._sample(name, each, maps, gradient_scale) for name, each in due.items()]
        return [sample for sample in samples if sample is not None]

    def sample_while_paused(
        self,
        model: nn.Module,
        weights: dict[str, WeightSums],
        image: Tensor | None,
        forward: Callable[[Tensor], Any] | None,
    ) -> list[DetailSample]:
        """Return samples of the open ones among these layers while no batch is trained.

        Gradients are those of the last batch. Maps are of ``image`` (channels, H, W), if any, which
        has no loss and therefore no gradients. There are none if the user's forward fails.
        """
        maps = self._maps_of(model, image, weights, forward)
        samples = []
        for name, each in weights.items():
            layer = self._open.get(name)
            if layer is not None:
                layer.clear()
                layer.read_last_gradient(each)
                samples.append(self._sample(name, each, maps))
        return [sample for sample in samples if sample is not None]

    def _sample(
        self,
        name: str,
        weights: WeightSums,
        maps: dict[str, Tensor],
        gradient_scale: Tensor | float = 1.0,
    ) -> DetailSample | None:
        """Return a sample; None while no forward has computed the weight of the conv."""
        weight = weights.current_weight()
        if weight is None:
            return None
        layer = self._open[name]
        layer.sampled_at, layer.is_due = self._clock(), False
        return DetailSample(
            name,
            normalized_half(project_rows_randomly(filter_rows(weight, weights.conv))),
            _half(layer.smoothed_gradient if layer.smoothed else layer.gradient),
            _half(maps.get(name, layer.maps)),
            _half(layer.map_gradient if self._image is None else None),
            histogram_of(sample_values(weight)),
            None
            if layer.gradient_values is None
            else histogram_of(layer.gradient_values / gradient_scale),
        )

    def _maps_of(
        self,
        model: nn.Module,
        image: Tensor | None,
        weights: dict[str, WeightSums],
        forward: Callable[[Tensor], Any] | None,
    ) -> dict[str, Tensor]:
        """Return the maps of an image in these layers; none if the user's forward fails."""
        if image is None or not weights:
            return {}
        convs = {name: each.conv for name, each in weights.items()}
        depths = {name: layer.depth for name, layer in self._open.items()}
        try:
            return compute_activation_maps(model, image, convs, forward, depths)
        except Exception:  # the user's forward may raise anything
            log.info("Cannot compute the activation maps of %s", ", ".join(convs), exc_info=True)
            return {}

    def _close(self, layer: str) -> None:
        self._open.pop(layer).unhook()


def _half(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else normalized_half(tensor)
