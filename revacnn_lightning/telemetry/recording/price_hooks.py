"""Hooks that multiply activation maps with their gradients, for the statistic ``price``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from revacnn_lightning.telemetry.price_reductions import sum_products_per_image
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums
from revacnn_lightning.telemetry.recording.backward_passes import keeps_graph
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.unit_layers import to_maps_or_raise

if TYPE_CHECKING:
    from revacnn_lightning.telemetry.recording.map_reducer import MapReducer

__all__ = ["PriceHooks"]

GradientHook = Callable[[Tensor], None]


class _HeldMap:
    """What a layer has returned, until its gradient arrives.

    It is not the tensor that the hook is on, which would keep itself alive.
    """

    def __init__(self, output: Tensor) -> None:
        self._version = output._version
        self._output: Tensor | None = output.detach()

    def release(self) -> Tensor | None:
        """Return the output; None if something has written to it.

        Autograd frees its own maps one by one, as their gradients arrive, and so does this one,
        unless the pass retains its graph.
        """
        output = self._output
        if output is None or output._version != self._version:
            return None
        if not keeps_graph():
            self._output = None
        return output


class PriceHooks:
    """Makes hooks for what layers return. Each sums the products of a map with its gradient.

    Args:
        batch: the batch under way.
        stopwatch: measures the cost.
    """

    def __init__(self, batch: BatchState, stopwatch: Stopwatch) -> None:
        self._batch = batch
        self._stopwatch = stopwatch

    def general_hook(
        self, layer: ObservedLayer, sums: ActivationSums, output: Tensor
    ) -> GradientHook:
        """Return the hook of what a layer returned, whose products ``sums`` receive."""
        held = _HeldMap(output)

        def on_gradient(gradient: Tensor) -> None:
            self._batch.prepare_sums(layer)
            start = self._stopwatch.now()
            self._add_products(layer, sums, held.release(), gradient)
            self._stopwatch.add("map gradients", start)

        return self._batch.guarded(on_gradient)

    def specialized_hook(self, reducer: MapReducer, output: Tensor) -> GradientHook:
        """Return the hook of the first map of a batch, whose products go to the reducer's slot."""
        held, slot, to_maps = _HeldMap(output), reducer.product_slot, reducer.to_maps
        layer, touched = reducer.layer, self._batch.touched
        reducer.awaits_products = True

        def on_gradient(gradient: Tensor) -> None:
            start = self._stopwatch.now()
            output = held.release()
            is_first, reducer.awaits_products = reducer.awaits_products, False
            is_expected = type(gradient) is Tensor and gradient.shape == reducer.output_shape
            if output is None or not is_first or not is_expected or layer in touched:
                self._batch.prepare_sums(layer)
                self._add_products(layer, reducer.sums, output, gradient)
            else:
                gradient = gradient.detach()
                if to_maps is not None:
                    output, gradient = to_maps(output), to_maps(gradient)
                sum_products_per_image(output, gradient, slot)
                self._batch.events.append(reducer.priced)
            self._stopwatch.add("map gradients", start)

        return self._batch.guarded(on_gradient)

    def _add_products(
        self, layer: ObservedLayer, sums: ActivationSums, output: Tensor | None, gradient: Tensor
    ) -> None:
        if output is None:
            sums.is_overwritten = True
            return
        maps = to_maps_or_raise(layer.conv, output)
        gradients = to_maps_or_raise(layer.conv, gradient.detach())
        sums.image_products.append(sum_products_per_image(maps, gradients))
