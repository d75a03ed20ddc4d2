"""A layer that a viewer has open: its gradients and activation maps, batch by batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.conv import filter_rows, weight_parameter
from revacnn_lightning.telemetry.inspection.downsampling import project_rows_randomly
from revacnn_lightning.telemetry.inspection.histograms import sample_values
from revacnn_lightning.telemetry.inspection.map_images import MIDDLE, first_image_thumbnails
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums
from revacnn_lightning.telemetry.reductions import add_to
from revacnn_lightning.telemetry.unit_layers import UnitLayer, filter_count

__all__ = ["InspectedLayer"]

SMOOTHING_BATCHES = 20  # span of the exponential moving average of gradients


@dataclass(eq=False)
class InspectedLayer:
    """A layer that a viewer has open. All tensors are on the training device.

    Attributes:
        batch: the batch under way.
        max_hz: upper bound of samples per second.
        smoothed: whether samples contain the moving average of the gradients.
        depth: which slice of maps that are volumes to sample, from 0 to 1.
        expires_at: when the layer counts as closed, on the recorder's clock.
        sampled_at: when its last sample was made, on the recorder's clock.
        is_due: whether a sample of this batch is to be made.
        gradient: features (C, D) of this batch's gradient, D = min(K, 64).
        gradient_values: a sample (m,) of this batch's gradient, if this batch is sampled.
        smoothed_gradient: exponential moving average of `gradient`, (C, D).
        maps: downsampled activation maps (C, h, w) of the first image of this batch.
        map_gradient: downsampled gradients of the loss with respect to `maps`, (C, h, w).
    """

    batch: BatchState = field(default_factory=BatchState)
    max_hz: float = 0.0
    smoothed: bool = False
    depth: float = MIDDLE
    expires_at: float = -math.inf
    sampled_at: float = -math.inf
    is_due: bool = False
    gradient: Tensor | None = None
    gradient_values: Tensor | None = None
    smoothed_gradient: Tensor | None = None
    maps: Tensor | None = None
    map_gradient: Tensor | None = None
    _handle: RemovableHandle | None = None

    def begin_batch(self, weights: WeightSums, now: float) -> None:
        """Decide whether this batch is sampled, and hook the weight if its gradient is needed."""
        self.clear()
        self.is_due = self.max_hz > 0 and now - self.sampled_at >= 1 / self.max_hz
        if self.is_due or self.smoothed:
            self._hook(weights)

    def clear(self) -> None:
        """Release the tensors of the previous batch."""
        self.gradient = self.gradient_values = self.maps = self.map_gradient = None

    def add_map(self, conv: UnitLayer, output: Tensor) -> None:
        """Keep the maps of the first image that the layer returned, and later their gradients."""
        if self.maps is not None:
            return
        self.maps = first_image_thumbnails(conv, output.detach(), self.depth)

        def on_gradient(gradient: Tensor) -> None:
            self.map_gradient = first_image_thumbnails(conv, gradient.detach(), self.depth)

        if output.requires_grad and self.maps is not None:
            output.register_hook(self.batch.guarded(on_gradient))

    def end_batch(self, weights: WeightSums) -> None:
        """Remove the hook and update the moving average."""
        self.unhook()
        if weights.is_computed and (self.is_due or self.smoothed):
            gradient = weights.current_gradient()
            self.gradient = _features(weights, gradient)
            if self.is_due and gradient is not None:
                self.gradient_values = sample_values(gradient)
        if not self.smoothed or self.gradient is None:
            return
        average = self.smoothed_gradient
        if average is None or average.shape != self.gradient.shape:
            self.smoothed_gradient = self.gradient
        else:
            self.smoothed_gradient = average.lerp(self.gradient, 2 / (SMOOTHING_BATCHES + 1))

    def read_last_gradient(self, weights: WeightSums) -> None:
        """Set `gradient` as the last batch has left it."""
        self.gradient = _features(weights, weights.current_gradient())
        average = self.smoothed_gradient
        if average is None or len(average) != filter_count(weights.conv):  # the layer was edited
            self.smoothed_gradient = self.gradient

    def unhook(self) -> None:
        """Remove the hook on the weight, if any."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _hook(self, weights: WeightSums) -> None:
        self.unhook()
        weight = weight_parameter(weights.conv)
        if weight is None or not weight.requires_grad:
            return

        def on_gradient(gradient: Tensor) -> None:
            if weights.is_computed:
                return  # `end_batch` reads the gradient of the computed weight
            part = project_rows_randomly(filter_rows(gradient.detach(), weights.conv))
            self.gradient = part if self.gradient is None else self.gradient + part
            if self.is_due:
                self.gradient_values = add_to(self.gradient_values, sample_values(gradient))

        self._handle = weight.register_hook(self.batch.guarded(on_gradient))


def _features(weights: WeightSums, gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None
    return project_rows_randomly(filter_rows(gradient.detach(), weights.conv))
