"""Sums over the maps of one place in the network.

A map is summed at once, by the hook that sees it. Keeping maps in order to sum several in a row
would save some cold instructions, and cost far more: what is read later has left the cache, and
memory that is held back from the allocator has it ask the system for other pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from revacnn_lightning.telemetry import statistics as reduce

__all__ = ["ActivationSums", "in_backward", "settle_signals"]


@dataclass(eq=False)
class ActivationSums:
    """Sums over the maps of one place in the network: a conv's output, or what follows it.

    ``absolute``: the place passes on negative values that mean something, so that ``activation``
    sums magnitudes.
    """

    absolute: bool
    calls: int = 0
    images: int = 0
    pixels: int = 0  # of all images
    total: Tensor | None = None  # (C,)
    positive: Tensor | None = None  # (C,)
    lost: bool = False  # a map did not reach us
    gradient: Tensor | None = None  # (C,): Σ|∂L/∂a|
    gradient_pixels: int = 0
    image_gradients: list[Tensor] = field(default_factory=list)  # (B, C) each: Σ over pixels
    signal: Tensor | None = None  # (C,): signal to noise of these

    def begin(self) -> None:
        """Forget the batch before."""
        self.calls = self.images = self.pixels = self.gradient_pixels = 0
        self.total = self.positive = self.gradient = self.signal = None
        self.lost = False
        if self.image_gradients:
            self.image_gradients = []

    def seen(self, maps: Tensor) -> None:
        """Count a map."""
        images, _, height, width = maps.shape
        self.calls += 1
        self.images += images
        self.pixels += images * height * width

    def add(self, maps: Tensor, firing: bool) -> None:
        """Sum a map, and count its positive pixels if ``firing``."""
        if firing:
            total, positive = reduce.map_sums(maps, absolute=self.absolute)
            self.positive = _plus(self.positive, positive)
        else:
            total = reduce.absolute_sum(maps) if self.absolute else reduce.map_sum(maps)
        self.total = _plus(self.total, total)

    def add_gradient(self, gradient: Tensor, magnitude: bool, per_image: bool) -> None:
        """Sum the gradient of a map: its magnitudes, and the pixels of each image apart."""
        self.gradient_pixels += gradient.shape[0] * gradient.shape[2] * gradient.shape[3]
        if magnitude:
            self.gradient = _plus(self.gradient, reduce.absolute_sum(gradient))
        if per_image:
            self.image_gradients.append(reduce.image_sums(gradient))


def settle_signals(places: Iterable[ActivationSums]) -> None:
    """The images of the batch have all come: `ActivationSums.signal` of the places that saw gradients."""
    known = [sums for sums in places if sums.image_gradients]
    images = [reduce.joined(sums.image_gradients) for sums in known]
    for sums, signal in zip(known, reduce.signals_to_noise(images), strict=True):
        sums.signal = signal


def in_backward() -> bool:
    """Whether autograd is running on this thread."""
    return torch._C._current_graph_task_id() != -1


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)
