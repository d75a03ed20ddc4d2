"""Sums over the activation maps of one module.

A map is summed within the forward hook. Keeping large maps in order to sum several in a row would
save some cold instructions but cost far more: by then they have left the cache, and memory that is
withheld from the allocator makes it request more from the system. For small ones see
`deferred_maps`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from revacnn_lightning.telemetry import reductions
from revacnn_lightning.telemetry.price_reductions import estimate_removal_loss_changes
from revacnn_lightning.telemetry.recording.flat_buffer import Slots
from revacnn_lightning.telemetry.reductions import add_to

__all__ = ["ActivationSums", "finalize_signal_to_noise", "in_backward"]


@dataclass(eq=False)
class ActivationSums:
    """Sums over the maps that one module returned in a batch. C filters, B images, H×W pixels.

    Attributes:
        absolute: whether ``total`` sums magnitudes, because negative values carry information.
        slots: where the sums go, if they belong to the layer's activation map.
        output_shape: the shape of the module's first output of the last batch; None if that was no
            plain tensor.
        shape: the shape of that output as maps, (B, C, H, W).
        dtype: the dtype of that map.
        calls: how many maps the module returned.
        images: how many images they have.
        pixels: how many pixels all images have.
        total: (C,), sum over images and pixels.
        positive: (C,), number of positive pixels.
        is_lost: whether a map of this batch did not reach the hooks.
        gradient: (C,), Σ|∂L/∂a|.
        gradient_pixels: how many pixels ``gradient`` sums.
        is_gradient_lost: whether something has written to a gradient before it was summed.
        image_slot: (B, C), where the first ones of ``image_gradients`` go.
        image_gradients: (B, C) of each call, Σ ∂L/∂a over the pixels.
        signal: (C,), signal-to-noise ratio of ``image_gradients``; see `finalize_signal_to_noise`.
        product_slot: (B, C), where the first ones of ``image_products`` go.
        image_products: (B, C) of each call, Σ a ∂L/∂a over the pixels.
        is_overwritten: whether something has written to a map before its gradient arrived.
    """

    absolute: bool
    slots: Slots = field(default_factory=dict)
    output_shape: torch.Size | None = None
    shape: torch.Size = field(default_factory=torch.Size)
    dtype: torch.dtype = torch.float32
    calls: int = 0
    images: int = 0
    pixels: int = 0
    total: Tensor | None = None
    positive: Tensor | None = None
    is_lost: bool = False
    gradient: Tensor | None = None
    gradient_pixels: int = 0
    is_gradient_lost: bool = False
    image_slot: Tensor | None = None
    image_gradients: list[Tensor] = field(default_factory=list)
    signal: Tensor | None = None
    product_slot: Tensor | None = None
    image_products: list[Tensor] = field(default_factory=list)
    is_overwritten: bool = False

    def reset(self) -> None:
        """Discard the sums of the previous batch."""
        self.calls = self.images = self.pixels = self.gradient_pixels = 0
        self.total = self.positive = self.gradient = self.signal = None
        self.is_lost = self.is_gradient_lost = self.is_overwritten = False
        if self.image_gradients:
            self.image_gradients = []
        if self.image_products:
            self.image_products = []

    def count(self, shape: torch.Size) -> None:
        """Count a map of the shape (B, C, H, W)."""
        images, _, height, width = shape
        self.calls += 1
        self.images += images
        self.pixels += images * height * width

    def add(self, maps: Tensor, count_positive: bool) -> None:
        """Sum a map (B, C, H, W), and count its positive pixels if asked to."""
        if count_positive:
            total, positive = reductions.sum_and_positive_count_per_channel(
                maps, absolute=self.absolute
            )
            self.positive = add_to(self.positive, positive)
        else:
            total = (
                reductions.absolute_sum_per_channel(maps)
                if self.absolute
                else reductions.sum_per_channel(maps)
            )
        self.total = add_to(self.total, total)

    def count_first_map_in_slots(self, shape: torch.Size, has_positive: bool) -> None:
        """Account for the first map of a batch, whose sums are in the slots."""
        self.count(shape)
        self.total = self.slots["activation"]
        self.positive = self.slots["firing"] if has_positive else None

    def count_first_gradient_in_slots(
        self, shape: torch.Size, magnitude: Tensor | None, images: Tensor | None
    ) -> None:
        """Account for the first gradient of a batch, whose sums are in these slots."""
        self.gradient_pixels += shape[0] * shape[2] * shape[3]
        self.gradient, self.image_slot = magnitude, images
        if images is not None:
            self.image_gradients.append(images)

    def count_first_products_in_slot(self, slot: Tensor) -> None:
        """Account for the first products of a batch, which are in this slot."""
        self.product_slot = slot
        self.image_products.append(slot)

    def add_gradient(self, gradient: Tensor, magnitude: bool, per_image: bool) -> None:
        """Sum the gradient (B, C, H, W) of a map: its magnitude, and its pixels per image."""
        self.gradient_pixels += gradient.shape[0] * gradient.shape[2] * gradient.shape[3]
        if magnitude:
            self.gradient = add_to(self.gradient, reductions.absolute_sum_per_channel(gradient))
        if per_image:
            self.image_gradients.append(reductions.sum_per_image_and_channel(gradient))

    def discard_gradients(self) -> None:
        """Discard the gradients of this batch."""
        self.is_gradient_lost, self.image_gradients = True, []

    def estimated_price(self) -> Tensor | None:
        """Return the root mean square of ``image_products`` (C,), in B images; None without.

        Where all products are in slots, it is in its slot.
        """
        if not self.image_products or self.is_overwritten:
            return None
        if len(self.image_products) == 1 and self.image_products[0] is self.product_slot:
            return self.slots["price"]
        return estimate_removal_loss_changes(reductions.concatenate(self.image_products))


def finalize_signal_to_noise(all_sums: Iterable[ActivationSums]) -> None:
    """Compute `ActivationSums.signal` from the gradients of all images of the batch.

    Sums without gradients keep None. Where all gradients are in slots, the signal is in its slot.
    """
    with_gradients = []
    for sums in all_sums:
        if len(sums.image_gradients) == 1 and sums.image_gradients[0] is sums.image_slot:
            sums.signal = sums.slots["signal_to_noise"]
        elif sums.image_gradients:
            with_gradients.append(sums)
    images = [reductions.concatenate(sums.image_gradients) for sums in with_gradients]
    for sums, signal in zip(with_gradients, reductions.signals_to_noise(images), strict=True):
        sums.signal = signal


def in_backward() -> bool:
    """Return whether autograd is running a backward pass on this thread."""
    return torch._C._current_graph_task_id() != -1
