"""Specializes the hooks of the next batch, from what an earlier one has shown."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from revacnn_lightning.telemetry.recording.activation_meter import ActivationMeter
from revacnn_lightning.telemetry.recording.batch_hooks import BatchHooks, Hook, Prepared
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.computed_weights import weight_computing_module
from revacnn_lightning.telemetry.recording.deferred_maps import (
    MAX_DEFERRED,
    DeferredGradients,
    DeferredMaps,
)
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.recording.map_reducer import MapReducer
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.per_image_sums import (
    PER_IMAGE_STATISTICS,
    PerImageSums,
)
from revacnn_lightning.telemetry.recording.specialized_hooks import (
    PendingMaps,
    make_conv_without_activation_hook,
    make_gradient_hook,
    make_nonlinearity_hook,
    make_preactivation_hook,
    timed,
)
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.statistics import (
    MAP_GRADIENT_STATISTICS,
    SUMMED_GRADIENT_STATISTICS,
)

__all__ = ["HookSpecializer", "SpecializedHooks"]

MAX_KEPT = 16  # sets of hooks; a training has a few, depending on what a batch samples


@dataclass(frozen=True)
class SpecializedHooks:
    """The hooks of batches that sample the same statistics.

    Attributes:
        reducers: the reducers of the maps that these hooks are specialized for, by layer.
        hooks: the hooks of all modules.
        timed_hooks: the same, with their times measured.
        per_image_sums: the sums of each image that these batches sample, by statistic.
    """

    reducers: Mapping[ObservedLayer, MapReducer]
    hooks: Prepared
    timed_hooks: Prepared
    per_image_sums: Mapping[str, PerImageSums]


class HookSpecializer:
    """Specializes hooks, and keeps them for batches that sample the same.

    Args:
        batch: the batch under way.
        meter: measures the maps.
        stopwatch: measures the cost.
        batch_hooks: installs the hooks.

    Attributes:
        buffer: the buffer with the slots; None if no hook can be specialized.
    """

    def __init__(
        self,
        batch: BatchState,
        meter: ActivationMeter,
        stopwatch: Stopwatch,
        batch_hooks: BatchHooks,
    ) -> None:
        self.buffer: FlatBuffer | None = None
        self._batch = batch
        self._meter = meter
        self._stopwatch = stopwatch
        self._batch_hooks = batch_hooks
        self._pending_maps: PendingMaps = {}
        self._kept: dict[Any, SpecializedHooks] = {}
        self._per_image_sums: dict[tuple[str, int], PerImageSums] = {}  # with the number of images
        self._maps = DeferredMaps(batch, stopwatch)
        self._gradients = DeferredGradients(batch, stopwatch)
        batch.sum_deferred_maps, batch.sum_deferred = self._maps.sum, self._sum_deferred

    def reset(self) -> None:
        """Specialize new hooks, because layers, slots or shapes have changed."""
        self._kept.clear()
        self._per_image_sums.clear()
        self._maps.reset()
        self._gradients.reset()

    def end_batch(self) -> None:
        """Release the maps that reached no non-linearity, and those that were not summed.

        A gradient that arrives after the batch is not the first one of the next batch.
        """
        if not self._batch.statistics.isdisjoint(MAP_GRADIENT_STATISTICS):
            for reducer in self._batch.reducers.values():
                reducer.awaits_gradient = reducer.awaits_products = False
        self._pending_maps.clear()
        self._maps.clear()
        self._gradients.clear()
        if self._batch.must_specialize:
            self.reset()

    def _sum_deferred(self) -> None:
        self._maps.sum()
        self._gradients.sum()

    def specialize(
        self, layers: Sequence[ObservedLayer], general_hooks: Mapping[nn.Module, Hook]
    ) -> SpecializedHooks:
        """Return the hooks of a batch.

        Args:
            layers: all layers.
            general_hooks: the general hook of each module.
        """
        batch = self._batch
        key = (batch.statistics, batch.of_all_layers, self._meter.inspected_layers)
        if key not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                self.reset()
            possible = [layer for layer in layers if self._can_specialize(layer)]
            self._kept[key] = self._specialize(possible, general_hooks)
        return self._kept[key]

    def _can_specialize(self, layer: ObservedLayer) -> bool:
        """Return whether the map of a layer can be summed straight into its slots."""
        sums = layer.map_sums
        return (
            layer.was_called
            and layer.source is not None
            and bool(sums.slots)
            and sums.output_shape is not None
            and sums.shape[1] == layer.width
            and (layer.source is layer.conv or len(layer.preactivation_modules) == 1)
            and weight_computing_module(layer.conv) is None
            and layer.name not in self._meter.inspected_layers
        )

    def _specialize(
        self, layers: Sequence[ObservedLayer], general_hooks: Mapping[nn.Module, Hook]
    ) -> SpecializedHooks:
        """Return hooks for the maps of these layers, and the general hooks of other modules."""
        per_image_sums = self._find_per_image_sums(layers)
        reducers = {layer: self._make_reducer(layer, per_image_sums) for layer in layers}
        self._limit_deferred(reducers.values())
        self._maps.buffer = self._gradients.buffer = self.buffer
        hooks, timed_hooks = dict(general_hooks), dict(general_hooks)
        for layer, reducer in reducers.items():
            specialized = self._hooks_of(reducer, general_hooks)
            hooks.update(specialized)
            timed_hooks.update(specialized)
            assert layer.source is not None
            timed_hooks[layer.source] = timed(specialized[layer.source], self._stopwatch)
        prepare = self._batch_hooks.prepare
        return SpecializedHooks(reducers, prepare(hooks), prepare(timed_hooks), per_image_sums)

    def _limit_deferred(self, reducers: Iterable[MapReducer]) -> None:
        """Let no more maps and gradients be summed later than may be kept."""
        size = gradient_size = 0
        for reducer in reducers:
            size += reducer.shape.numel() if reducer.is_deferrable else 0
            reducer.is_deferrable = reducer.is_deferrable and size <= MAX_DEFERRED
            gradient_size += reducer.shape.numel() if reducer.is_gradient_deferrable else 0
            reducer.is_gradient_deferrable &= gradient_size <= MAX_DEFERRED

    def _find_per_image_sums(self, layers: Sequence[ObservedLayer]) -> dict[str, PerImageSums]:
        """Return slots for the sums of each image that this batch samples."""
        image_counts = {layer.map_sums.shape[0] for layer in layers}
        if len(image_counts) != 1 or self.buffer is None:
            return {}
        image_count, found = image_counts.pop(), {}
        for name in PER_IMAGE_STATISTICS:
            if name in self._batch.of_all_layers:
                kept = self._per_image_sums.get((name, image_count))
                found[name] = kept or PerImageSums(name, image_count, self.buffer)
                self._per_image_sums[name, image_count] = found[name]
        return found

    def _make_reducer(
        self, layer: ObservedLayer, per_image_sums: Mapping[str, PerImageSums]
    ) -> MapReducer:
        """Return the reducer of a map, with the hooks of its gradient if that is sampled."""
        sampled = self._batch.sampled_statistics(layer.name)
        reducer = MapReducer(layer, sampled, per_image_sums)
        prices = self._meter.price_hooks
        if "price" in sampled and reducer.product_slot is not None:
            reducer.make_price_hook = functools.partial(prices.specialized_hook, reducer)
        elif "price" in sampled:
            reducer.make_price_hook = functools.partial(prices.general_hook, layer, reducer.sums)
        if not sampled.isdisjoint(SUMMED_GRADIENT_STATISTICS):
            reducer.on_gradient = self._meter.gradient_hook(layer, reducer.sums, sampled)
            if "signal_to_noise" not in sampled or reducer.per_image_gradients is not None:
                reducer.on_gradient = make_gradient_hook(
                    self._batch, reducer, self._gradients, reducer.on_gradient, self._stopwatch
                )
        return reducer

    def _hooks_of(
        self, reducer: MapReducer, general_hooks: Mapping[nn.Module, Hook]
    ) -> dict[nn.Module, Hook]:
        """Return the hooks on the way of a map."""
        layer, batch, source = reducer.layer, self._batch, reducer.layer.source
        assert source is not None
        if source is layer.conv:
            replace_hook = self._batch_hooks.hook_replacer(source)
            return {
                source: make_conv_without_activation_hook(
                    batch, reducer, general_hooks[source], replace_hook
                )
            }
        (preactivation,) = layer.preactivation_modules
        replace_hook, pending_maps = (
            self._batch_hooks.hook_replacer(preactivation),
            self._pending_maps,
        )
        return {
            preactivation: make_preactivation_hook(
                batch, reducer, pending_maps, general_hooks[preactivation], replace_hook
            ),
            source: make_nonlinearity_hook(
                batch, self._meter, pending_maps, self._maps, general_hooks[source]
            ),
        }
