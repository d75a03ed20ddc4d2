"""What reduces the map of a layer, and its gradient, in batches that sample the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from torch import Tensor

from revacnn_lightning.telemetry.recording.deferred_maps import is_kept_by_autograd
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.per_image_sums import PerImageSums
from revacnn_lightning.telemetry.recording.slot_reductions import (
    build_gradient_reductions,
    build_map_reductions,
    is_never_negative,
    is_overhead_bound,
)
from revacnn_lightning.telemetry.unit_layers import is_bchw_output, to_maps_or_raise

__all__ = ["MapReducer"]


class MapReducer:
    """Reduces a layer's map, and its gradient, into the slots of the layer.

    Args:
        layer: a layer whose source is known, and which has slots.
        sampled: the statistics of the batch.
        per_image_sums: those with slots for the sums of each image, by statistic. Missing if that
            is not sampled, or if the maps have another number of images.

    Attributes:
        layer: the layer.
        sums: the sums over the map.
        shape: the shape of the map, (B, C, H, W).
        output_shape: the shape of what the source returns.
        to_maps: returns an output as maps; None if the output is maps as it is.
        counts_positive: whether the reductions count positive pixels, too.
        is_never_negative: whether all pixels but zeros are positive.
        is_deferrable: whether the map may be summed later, with others (`DeferredMaps`), if it
            requires a gradient.
        reductions: sum the map.
        magnitude, per_image_gradients: receive the sums of its gradient, if these are sampled.
        gradient_reductions: sum its gradient.
        is_gradient_deferrable: whether that may be summed later, with others.
        on_gradient: receives the gradient of the map; None if that is not sampled.
        awaits_gradient: whether it is the first one of the batch.
        product_slot: receives the products of the map with its gradient, if these are sampled.
        make_price_hook: makes the hook of a map that sums them; None if they are not sampled.
        awaits_products: whether they are the first ones of the batch.
        pending, measured, returned, priced: the events of the layer, see `BatchState.events`: the
            module before the non-linearity has returned; the map is summed; its gradient is summed;
            their products are.
    """

    def __init__(
        self,
        layer: ObservedLayer,
        sampled: Set[str],
        per_image_sums: Mapping[str, PerImageSums],
    ) -> None:
        self.layer = layer
        self.sums = layer.map_sums
        assert self.sums.output_shape is not None
        self.shape, self.output_shape = self.sums.shape, self.sums.output_shape
        is_map = is_bchw_output(layer.conv, self.output_shape)
        self.to_maps = None if is_map else functools.partial(to_maps_or_raise, layer.conv)
        self.counts_positive = "firing" in sampled
        self.is_never_negative = "activation" in sampled and is_never_negative(layer.source)
        slots = self.sums.slots
        self.reductions = build_map_reductions(
            self.shape,
            self.sums.dtype,
            slots["activation"],
            slots["firing"] if self.counts_positive else None,
            sum_magnitudes=self.sums.absolute,
            has_no_negatives=self.is_never_negative,
        )
        is_on_cpu = slots["activation"].device.type == "cpu"
        is_few = is_on_cpu and is_overhead_bound(self.shape, slots["activation"])
        self.is_deferrable = is_few and is_kept_by_autograd(layer.source)
        self.pending, self.measured, self.returned, self.priced = (
            (layer, event) for event in ("pending", "measured", "returned", "priced")
        )
        self.magnitude = slots["activation_gradient"] if "activation_gradient" in sampled else None
        images = self.per_image_gradients = per_image_sums.get("signal_to_noise")
        self.image_slot = None if images is None else images.slot(layer.columns)
        self.is_gradient_deferrable = is_few
        self.gradient_reductions = build_gradient_reductions(
            self.shape, self.sums.dtype, self.magnitude, self.image_slot
        )
        self.on_gradient: Callable[[Tensor], None] | None = None
        self.awaits_gradient = False
        products = per_image_sums.get("price")
        self.product_slot = None if products is None else products.slot(layer.columns)
        self.make_price_hook: Callable[[Tensor], Callable[[Tensor], None]] | None = None
        self.awaits_products = False

    def update_sums(self, events: Sequence[Any]) -> None:
        """Update the layer's sums to what the specialized hooks have done in this batch."""
        if self.pending in events:
            self.layer.expected_maps = 1
        if self.measured in events:
            self.sums.count_first_map_in_slots(self.shape, self.counts_positive)
        if self.returned in events:
            self.sums.count_first_gradient_in_slots(self.shape, self.magnitude, self.image_slot)
        if self.priced in events and self.product_slot is not None:
            self.sums.count_first_products_in_slot(self.product_slot)

    def hook_gradient(self, output: Tensor) -> None:
        """Hook what the source has returned, to receive its gradient."""
        if not output.requires_grad:
            return
        if self.on_gradient is not None:
            self.awaits_gradient = True
            output.register_hook(self.on_gradient)
        if self.make_price_hook is not None:
            output.register_hook(self.make_price_hook(output))
