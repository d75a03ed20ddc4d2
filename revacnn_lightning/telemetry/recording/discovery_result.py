"""What a discovery batch shows of each layer, and whether later batches take the same path."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.unit_layers import is_forward_called

__all__ = [
    "evaluate_discovery_batch",
    "has_lost_maps",
    "log_compiled_layers",
    "mark_lost_maps",
    "sort_by_first_forward",
]

log = logging.getLogger(__name__)


def evaluate_discovery_batch(layers: list[ObservedLayer]) -> list[ObservedLayer]:
    """Evaluate a discovery batch: the source of each map, the forward order, compiled layers.

    Returns:
        The layers in forward order.
    """
    for layer in layers:
        _set_source(layer)
    layers = _update_order(layers)
    _mark_compiled(layers)
    return layers


def log_compiled_layers(layers: Sequence[ObservedLayer]) -> None:
    """Log which layers run in a compiled region, if any do."""
    names = [layer.name for layer in layers if layer.is_compiled]
    if names:
        log.warning(
            "Activation maps of %s are not observed: the layers run in a compiled region "
            "(torch.compile, torch.jit), where hooks are not called. Their weights are observed.",
            ", ".join(names),
        )


def mark_lost_maps(layers: list[ObservedLayer]) -> None:
    """Mark which maps of this batch did not reach the hooks."""
    for layer in layers:
        sums = layer.map_sums
        is_missing = layer.weights.has_gradient and not sums.calls and not layer.is_compiled
        is_diverted = layer.source is not layer.conv and layer.expected_maps != sums.calls
        sums.is_lost = is_missing or is_diverted


def has_lost_maps(layers: list[ObservedLayer]) -> bool:
    """Return whether `mark_lost_maps` has marked a map of a layer that was called before."""
    return any(layer.map_sums.is_lost and layer.was_called for layer in layers)


def sort_by_first_forward(layers: list[ObservedLayer]) -> list[ObservedLayer]:
    """Sort by first forward; a layer not called yet stays behind its predecessor in the model."""
    rank, ranks = -1, []
    for position, layer in enumerate(layers):
        rank = layer.forward_rank if layer.forward_rank >= 0 else rank
        ranks.append((rank, position))
    return [layers[position] for _, position in sorted(ranks)]


def _set_source(layer: ObservedLayer) -> None:
    """The map is the output of the non-linearity if one follows every call of the conv."""
    if layer.conv_sums.calls:
        always_follows = layer.nonlinearity_sums.calls == layer.conv_sums.calls
        layer.source = layer.nonlinearity if always_follows else layer.conv


def _update_order(layers: list[ObservedLayer]) -> list[ObservedLayer]:
    """Adopt the order of this batch if it called a layer for the first time."""
    if not any(layer.call_index >= 0 and not layer.was_called for layer in layers):
        return layers
    for layer in layers:
        layer.forward_rank = layer.call_index
        layer.was_called = layer.was_called or layer.call_index >= 0
    return sort_by_first_forward(sorted(layers, key=lambda layer: layer.model_index))


def _mark_compiled(layers: list[ObservedLayer]) -> None:
    """A layer that gets a gradient but is never called runs where no hook is called."""
    uncalled = [layer for layer in layers if not layer.was_called]
    has_compiled = any(
        layer.weights.has_gradient for layer in uncalled if is_forward_called(layer.conv)
    )
    for layer in layers:
        layer.is_compiled = has_compiled and layer in uncalled and is_forward_called(layer.conv)
