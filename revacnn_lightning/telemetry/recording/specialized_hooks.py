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

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from revacnn_lightning.telemetry.recording.activation_meter import ActivationMeter
from revacnn_lightning.telemetry.recording.batch_hooks import Hook
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.deferred_maps import DeferredGradients, DeferredMaps
from revacnn_lightning.telemetry.recording.map_reducer import MapReducer
from revacnn_lightning.telemetry.recording.timing import Stopwatch

__all__ = [
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
PendingMaps = dict[int, tuple[MapReducer, Tensor, int]]


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
    shape = reducer.output_shape
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
            reducer.hook_gradient(output)
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
            reducer.hook_gradient(output)
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
