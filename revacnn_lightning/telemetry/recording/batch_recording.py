"""From the sums of a batch to a table of the host, by way of one tensor on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.weight_sums import weight_of

__all__ = ["Recording", "RecordingAssembler"]

_SCALED = ("gradient", "activation_gradient")  # by what the loss was multiplied by


@dataclass
class Recording:
    """What one batch told us.

    ``values`` is float32 of shape (S, N): a row for each of ``names``, the filters of all
    ``layers`` side by side, ``widths`` of them each. NaN: not measured on this batch. The array is
    never written to again.
    """

    names: list[str]
    values: np.ndarray
    nonfinite: bool  # inf or NaN among the gradients of the convs on this batch
    layers: list[str]
    widths: list[int]
    every: list[int]  # of each of `names`: it is gathered on every n-th batch
    tag: Any = None  # what `end_batch` was given


class RecordingAssembler:
    """Makes recordings. Remembers the divisors of the last batch: they are seldom others."""

    def __init__(self) -> None:
        self._key: Any = None
        self._divisors = np.zeros((0, 0), np.float32)

    def assemble(
        self,
        names: Sequence[str],
        layers: Sequence[ObservedLayer],
        grad_scale: float,
        loss_scale: Tensor | float,
        every: list[int],
        tag: Any,
    ) -> tuple[Tensor, Callable[[np.ndarray], Recording]]:
        """The sums in one tensor, and what makes a recording of them on the host."""
        parts, counts = _gathered(names, layers)
        scale_is_sent = isinstance(loss_scale, Tensor)
        if isinstance(loss_scale, Tensor):
            parts.append(loss_scale.float().reshape(1))
        else:
            grad_scale *= loss_scale
        flat = torch.cat(_on_one_device(parts)) if parts else torch.zeros(0)
        recording = Recording(
            names=list(names),
            values=self._divisors,
            nonfinite=False,
            layers=[layer.name for layer in layers],
            widths=[layer.width for layer in layers],
            every=every,
            tag=tag,
        )
        arrived = [layer.weights.arrived for layer in layers]

        def finish(values: np.ndarray) -> Recording:
            scale = grad_scale
            if scale_is_sent:
                scale *= float(values[-1])
                values = values[:-1]
            with np.errstate(all="ignore"):  # infinite gradients and weights are data here
                self._divide(recording, values.reshape(-1, sum(recording.widths)), counts, scale)
                recording.nonfinite = _any_nonfinite(recording, arrived)
            return recording

        return flat, finish

    def _divide(
        self, recording: Recording, table: np.ndarray, counts: list[float], scale: float
    ) -> None:
        """Make values of the sums, in their place."""
        names = recording.names
        table /= self._divisors_of(names, counts, recording.widths, scale)
        if "update_ratio" in names:
            table[names.index("update_ratio")] /= table[-1]
        recording.values = table[: len(names)]

    def _divisors_of(
        self, names: list[str], counts: list[float], widths: list[int], scale: float
    ) -> np.ndarray:
        """What to divide the table by, of its shape."""
        key = (names, counts, widths, scale)
        if key != self._key:
            by = np.array(counts, np.float32).reshape(-1, len(widths))
            by[[row for row, name in enumerate(names) if name in _SCALED]] *= scale
            self._key, self._divisors = key, by.repeat(widths, axis=1)
        return self._divisors


def _gathered(
    names: Sequence[str], layers: Sequence[ObservedLayer]
) -> tuple[list[Tensor], list[float]]:
    """The sums of each statistic of each layer, and what to divide them by.

    With ``update_ratio`` goes a row more, for the host to divide by: the norms of the weights.
    """
    parts: list[Tensor] = []
    counts: list[float] = []
    for name in names:
        read = _READ[name]
        for layer in layers:
            value, count = read(layer) if name in layer.wanted else (None, np.nan)
            parts.append(_zeros(layer) if value is None else value)
            counts.append(count)
    if "update_ratio" in names:
        for layer in layers:
            norm = layer.weights.norm_after
            parts.append(_zeros(layer) if norm is None else norm)
            counts.append(1.0)
    return parts, counts


# Each statistic of a layer: the sums, and the count to divide them by. No sums: divided by one,
# zero; divided by NaN, not measured.


def _gradient(layer: ObservedLayer) -> tuple[Tensor | None, float]:
    value = layer.weights.gradient()
    if value is None:
        unknown = layer.weights.arrived or layer.weights.parameter is None
        return None, np.nan if unknown else 1
    return value, _coefficients(layer)


def _optimizer_gradient(layer: ObservedLayer) -> tuple[Tensor | None, float]:
    value = layer.weights.used
    return value, np.nan if value is None else _coefficients(layer)


def _weight_norm(layer: ObservedLayer) -> tuple[Tensor | None, float]:
    value = layer.weights.norm_now()
    return value, np.nan if value is None else 1


def _update_ratio(layer: ObservedLayer) -> tuple[Tensor | None, float]:
    value = layer.weights.update
    return value, np.nan if value is None else layer.weights.per_rate


def _activation(layer: ObservedLayer) -> tuple[Tensor | None, float]:
    return _of_maps(layer, layer.map.total, layer.map.images)


def _firing(layer: ObservedLayer) -> tuple[Tensor | None, float]:
    return _of_maps(layer, layer.map.positive, layer.map.pixels)


def _activation_gradient(layer: ObservedLayer) -> tuple[Tensor | None, float]:
    return _of_maps(layer, layer.map.gradient, layer.map.gradient_pixels)


def _signal_to_noise(layer: ObservedLayer) -> tuple[Tensor | None, float]:
    value = layer.map.signal
    return value, np.nan if value is None or layer.map.lost or layer.hidden else 1


_READ: dict[str, Callable[[ObservedLayer], tuple[Tensor | None, float]]] = {
    "gradient": _gradient,
    "activation": _activation,
    "weight_norm": _weight_norm,
    "update_ratio": _update_ratio,
    "optimizer_gradient": _optimizer_gradient,
    "activation_gradient": _activation_gradient,
    "firing": _firing,
    "signal_to_noise": _signal_to_noise,
}


def _of_maps(layer: ObservedLayer, value: Tensor | None, count: int) -> tuple[Tensor | None, float]:
    if layer.hidden or layer.map.lost:
        return None, np.nan
    return (None, 1) if value is None or not count else (value, count)


def _coefficients(layer: ObservedLayer) -> float:
    """K, how many a filter has."""
    weight = weight_of(layer.conv)
    return np.nan if weight is None else weight.numel() / layer.width


def _zeros(layer: ObservedLayer) -> Tensor:
    """Stands for a value that was not measured."""
    weight = weight_of(layer.conv)
    return torch.zeros(layer.width, device="cpu" if weight is None else weight.device)


def _on_one_device(parts: list[Tensor]) -> list[Tensor]:
    """A model spread over several devices gathers on that of its first conv."""
    device = parts[0].device
    return [part if part.device == device else part.to(device) for part in parts]


def _any_nonfinite(recording: Recording, arrived: list[bool]) -> bool:
    """Whether a gradient that came is inf or NaN; the others are NaN for want of one."""
    if "gradient" not in recording.names:
        return False
    gradients = recording.values[recording.names.index("gradient")]
    if np.isfinite(gradients.sum()):
        return False
    return not np.isfinite(gradients[np.repeat(arrived, recording.widths)]).all()
