"""The statistics of a layer as a sum and the number to divide it by.

Sums stay on the device; the host divides. A statistic without a sum is zero where the divisor is a
number, and not measured where it is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from revacnn_lightning.telemetry.conv import weight_parameter
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer

__all__ = ["SCALED_STATISTICS", "SUM_AND_DIVISOR", "SumAndDivisor"]

SumAndDivisor = tuple[Tensor | None, float]

# Proportional to the loss, so that the loss scale has to be divided out.
SCALED_STATISTICS = ("gradient", "activation_gradient", "price")


def _gradient(layer: ObservedLayer) -> SumAndDivisor:
    if layer.weights.is_gradient_lost:
        return None, np.nan
    total = layer.weights.gradient_sum()
    if total is None:
        weights = layer.weights
        is_unknown = weights.has_gradient or weights.parameter is None
        return None, np.nan if is_unknown and not weights.effective.is_observed else 1
    return total, _coefficients(layer)


def _optimizer_gradient(layer: ObservedLayer) -> SumAndDivisor:
    total = layer.weights.optimizer_gradient
    return total, np.nan if total is None else _coefficients(layer)


def _weight_norm(layer: ObservedLayer) -> SumAndDivisor:
    norm = layer.weights.norm
    return norm, np.nan if norm is None else 1


def _update_ratio(layer: ObservedLayer) -> SumAndDivisor:
    norm = layer.weights.update_norm
    return norm, np.nan if norm is None else 1  # and what `RecordingAssembler` divides by


def _norm_after_step(layer: ObservedLayer) -> SumAndDivisor:
    return layer.weights.norm_after_step, 1


def _activation(layer: ObservedLayer) -> SumAndDivisor:
    sums = layer.map_sums
    return _of_maps(layer, sums, sums.total, sums.images)


def _firing(layer: ObservedLayer) -> SumAndDivisor:
    sums = layer.map_sums
    return _of_maps(layer, sums, sums.positive, sums.pixels)


def _activation_gradient(layer: ObservedLayer) -> SumAndDivisor:
    sums = layer.map_sums
    if sums.is_gradient_lost:
        return None, np.nan
    return _of_maps(layer, sums, sums.gradient, sums.gradient_pixels)


def _signal_to_noise(layer: ObservedLayer) -> SumAndDivisor:
    signal = layer.map_sums.signal
    is_unknown = signal is None or layer.map_sums.is_lost or not layer.is_observed
    return signal, np.nan if is_unknown else 1


def _price(layer: ObservedLayer) -> SumAndDivisor:
    sums = layer.map_sums
    price = None if sums.is_lost or not layer.is_observed else sums.estimated_price()
    return price, np.nan if price is None else 1


SUM_AND_DIVISOR: dict[str, Callable[[ObservedLayer], SumAndDivisor]] = {
    "gradient": _gradient,
    "activation": _activation,
    "weight_norm": _weight_norm,
    "update_ratio": _update_ratio,
    "norm_after_step": _norm_after_step,
    "optimizer_gradient": _optimizer_gradient,
    "activation_gradient": _activation_gradient,
    "firing": _firing,
    "signal_to_noise": _signal_to_noise,
    "price": _price,
}


def _of_maps(
    layer: ObservedLayer, sums: ActivationSums, total: Tensor | None, count: int
) -> SumAndDivisor:
    # The filters of a layer that this batch has not run are not inactive.
    if not layer.is_observed or sums.is_lost or not sums.images:
        return None, np.nan
    return (None, 1) if total is None or not count else (total, count)


def _coefficients(layer: ObservedLayer) -> float:
    """Return K, the number of coefficients of a filter."""
    weights = layer.weights
    weight = weights.effective.value
    if weight is None:
        weight = weights.parameter  # the one with our hook: not that of a frozen conv
    if weight is None:
        weight = weight_parameter(layer.conv)
    return np.nan if weight is None or not layer.width else weight.numel() / layer.width
