"""Hooks for a batch like the one before it, with all decisions made before the batch.

Which modules are called, with maps of which shape, and where their sums go is known from an
earlier batch. A specialized hook handles the first call of its module in a batch by one reduction
straight into the slots of the layer, or keeps a small map, which is reduced with others
(`DeferredMaps`). Then the general hook takes its place until the next batch; it also handles a map
that is not as expected, and then all further maps of that layer
(`BatchState.prepare_sums`).

A specialized hook returns immediately where Dynamo traces it. An export calls it with tensors of
another type, which it leaves to the general hook.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from revacnn_lightning.telemetry.recording.activation_meter import ActivationMeter
from revacnn_lightning.telemetry.recording.batch_hooks import Hook
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.deferred_maps import (
    DeferredGradients,
    DeferredMaps,
    is_kept_by_autograd,
)
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.per_image_gradients import PerImageGradients
from revacnn_lightning.telemetry.recording.slot_reductions import (
    build_gradient_reductions,
    build_map_reductions,
    is_never_negative,
    is_overhead_bound,
)
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.unit_layers import is_bchw_output, to_maps_or_raise

__all__ = [
    "MapReducer",
    "PendingMaps",
    "make_conv_without_activation_hook",
    "make_gradient_hook",
    "make_nonlinearity_hook",
    "make_preactivation_hook",
    "timed",
]

Replace = Callable[[Hook], None]  # installs another hook until the end of the batch
# Maps that wait for their non-linearity, by their id: with the version that they had before it,
# which rises when something writes to them.
PendingMaps = dict[int, tuple["MapReducer", Tensor, int]]


class MapReducer:
    """Reduces a layer's map, and its gradient, into the slots of the layer.

    Args:
        layer: a layer whose source is known, and which has slots.
        sampled: the statistics of the batch.
        per_image_gradients: has slots for the gradients of each image; None if they are not
            sampled, or if the maps have another number of images.

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
        pending, measured, returned: the events of the layer, see `BatchState.events`: the module
            before the non-linearity has returned; the map is summed; its gradient is summed.
    """

    def __init__(
        self, layer: ObservedLayer, sampled: Set[str], per_image_gradients: PerImageGradients | None
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
        self.pending, self.measured, self.returned = (
            (layer, event) for event in ("pending", "measured", "returned")
        )
        self.magnitude = slots["activation_gradient"] if "activation_gradient" in sampled else None
        images = self.per_image_gradients = per_image_gradients
        self.image_slot = None if images is None else images.slot(layer.columns)
        self.is_gradient_deferrable = is_few
        self.gradient_reductions = build_gradient_reductions(
            self.shape, self.sums.dtype, self.magnitude, self.image_slot
        )
        self.on_gradient: Callable[[Tensor], None] | None = None
        self.awaits_gradient = False

    def update_sums(self, events: Sequence[Any]) -> None:
        """Update the layer's sums to what the specialized hooks have done in this batch."""
        if self.pending in events:
            self.layer.expected_maps = 1
        if self.measured in events:
            self.sums.count_first_map_in_slots(self.shape, self.counts_positive)
        if self.returned in events:
            self.sums.count_first_gradient_in_slots(self.shape, self.magnitude, self.image_slot)


def make_gradient_hook(
    batch: BatchState,
    reducer: MapReducer,
    deferred: DeferredGradients,
    general_hook: Callable[[Tensor], None],
    stopwatch: Stopwatch,
) -> Callable[[Tensor], None]:
    """Return a hook on a map that sums its gradient.

    It handles the first gradient of a batch. ``general_hook`` handles the others.
    """
    shape, to_maps, defer = reducer.output_shape, reducer.to_maps, deferred.add
    reductions = reducer.gradient_reductions
    record, event, touched = batch.events.append, reducer.returned, batch.touched

    def hook(gradient: Tensor) -> None:
        if not batch.is_recording:
            return
        is_expected = reducer.awaits_gradient and gradient.shape == shape
        if (
            not is_expected
            or type(gradient) is not Tensor
            or (touched and reducer.layer in touched)
        ):
            general_hook(gradient)
            return
        reducer.awaits_gradient = False
        try:
            if gradient.requires_grad:  # the backward pass makes a graph
                gradient = gradient.detach()
            if reducer.is_gradient_deferrable:
                defer((reducer, gradient, gradient._version))
            else:
                start = stopwatch.now() if stopwatch.is_timing else None
                maps = gradient if to_maps is None else to_maps(gradient)
                for reduce in reductions:
                    reduce(maps)
                if start is not None:
                    stopwatch.add("map gradients", start)
            record(event)
        except Exception as error:  # noqa: BLE001 - a bug here must not stop the training
            batch.end_recording(error)

    return hook


def make_conv_without_activation_hook(
    batch: BatchState, reducer: MapReducer, general_hook: Hook, replace_hook: Replace
) -> Hook:
    """Return the hook of a conv whose own output is its activation map."""
    shape, on_gradient = reducer.output_shape, reducer.on_gradient
    record, event, touched = batch.events.append, reducer.measured, batch.touched

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if is_dynamo_compiling():
            return
        replace_hook(general_hook)
        is_expected = type(output) is Tensor and output.shape == shape
        if not is_expected or (touched and reducer.layer in touched):
            general_hook(module, args, output)
            return
        try:
            if on_gradient is not None and output.requires_grad:
                reducer.awaits_gradient = True
                output.register_hook(on_gradient)
            _reduce_all(reducer, output)
            record(event)
        except Exception as error:  # noqa: BLE001 - a bug here must not stop the training
            batch.end_recording(error)

    return hook


def make_preactivation_hook(
    batch: BatchState,
    reducer: MapReducer,
    pending_maps: PendingMaps,
    general_hook: Hook,
    replace_hook: Replace,
) -> Hook:
    """Return the hook of the module, a conv or a normalization, before a non-linearity.

    Args:
        batch: the batch under way.
        reducer: reduces the layer's map, once the non-linearity has returned it.
        pending_maps: receives what the module returns.
        general_hook: handles all calls but the first one of a batch.
        replace_hook: replaces the hook of the module until the end of the batch.
    """
    record, event, touched = batch.events.append, reducer.pending, batch.touched

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if is_dynamo_compiling():
            return
        replace_hook(general_hook)
        is_expected = type(output) is Tensor and not output.is_inference()
        if not is_expected or (touched and reducer.layer in touched):
            general_hook(module, args, output)
            return
        pending_maps[id(output)] = reducer, output, output._version
        record(event)

    return hook


def make_nonlinearity_hook(
    batch: BatchState,
    meter: ActivationMeter,
    pending_maps: PendingMaps,
    deferred: DeferredMaps,
    general_hook: Hook,
) -> Hook:
    """Return the hook of a non-linearity that returns the activation maps of one or more layers."""
    record, touched, defer = batch.events.append, batch.touched, deferred.add

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if is_dynamo_compiling():
            return
        found = pending_maps.pop(id(args[0]), None) if args else None
        if found is None:
            general_hook(module, args, output)
            return
        reducer, received, version = found  # the very tensor that the module before it has returned
        is_lost = received._version - version != (output is received)
        if is_lost or not isinstance(output, Tensor):
            return  # something else has written to the map, or it is none
        try:
            is_expected = type(output) is Tensor and output.shape == reducer.output_shape
            if not is_expected or (touched and reducer.layer in touched):
                meter.measure(reducer.layer, reducer.sums, output)
                return
            if reducer.on_gradient is not None and output.requires_grad:
                reducer.awaits_gradient = True
                output.register_hook(reducer.on_gradient)
            if reducer.is_deferrable and output.requires_grad:
                defer((reducer, output, output._version))
            else:
                _reduce_all(reducer, output)
            record(reducer.measured)
        except Exception as error:  # noqa: BLE001 - a bug here must not stop the training
            batch.end_recording(error)

    return hook


def _reduce_all(reducer: MapReducer, output: Tensor) -> None:
    """Reduce the maps that a module returned, without a graph."""
    with_gradients = torch.is_grad_enabled()
    torch._C._set_grad_enabled(False)
    try:
        maps = output if reducer.to_maps is None else reducer.to_maps(output)
        for reduce in reducer.reductions:
            reduce(maps)
    finally:
        torch._C._set_grad_enabled(with_gradients)


def timed(hook: Hook, stopwatch: Stopwatch) -> Hook:
    """Return a hook that calls this one, and adds its time to the part ``maps``."""

    def call(module: nn.Module, args: Any, output: Any) -> None:
        start = stopwatch.now()
        hook(module, args, output)
        stopwatch.add("maps", start)

    return call
