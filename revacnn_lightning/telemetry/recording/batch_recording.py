"""The statistics of one batch as a table on the host, copied in one piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.telemetry.conv import device_of
from revacnn_lightning.telemetry.recording.layer_statistics import (
    SCALED_STATISTICS,
    SUM_AND_DIVISOR,
)
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer

__all__ = ["Recording", "RecordingAssembler"]


@dataclass
class Recording:
    """The statistics of one batch.

    Attributes:
        names: the S statistics.
        values: float32 (S, N), a row per statistic, the filters of all layers side by side. NaN
            where a statistic was not measured. The array is not modified later.
        nonfinite: whether a gradient of this batch is infinite or NaN.
        layers: names of the layers, in forward order.
        widths: the number of filters of each layer; they sum up to N.
        sampling_intervals: for each statistic, n if it is sampled on every n-th batch.
        loss: as passed to `Recorder.end_batch`, float32; None without.
        metadata: as passed to `Recorder.end_batch`.
    """

    names: list[str]
    values: np.ndarray
    nonfinite: bool
    layers: list[str]
    widths: list[int]
    sampling_intervals: list[int]
    loss: float | None = None
    metadata: Any = None


class RecordingAssembler:
    """Assembles recordings. Caches the divisors, which rarely change from batch to batch."""

    def __init__(self) -> None:
        self._key: Any = None
        self._divisors = np.zeros((0, 0), np.float32)

    def assemble(
        self,
        layers: Sequence[ObservedLayer],
        sampling_intervals: Mapping[str, int],
        *,
        grad_scale: float,
        loss_scale: Tensor | float,
        loss: Tensor | None,
        metadata: Any,
    ) -> tuple[Tensor, Callable[[np.ndarray], Recording]]:
        """Concatenate the sums of a batch.

        Args:
            layers: in forward order.
            sampling_intervals: by statistic; its keys are the statistics to record.
            grad_scale: what the loss was multiplied by, apart from ``loss_scale``.
            loss_scale: of mixed precision; a tensor is copied to the host with the sums.
            loss: a scalar that is copied to the host with the sums.
            metadata: of the recording.

        Returns:
            One tensor on the device, and the function that makes a recording of its host copy.
        """
        names = list(sampling_intervals)
        sums, divisors = _collect_sums(names, layers)
        if loss is not None:
            sums.append(loss.detach().float().reshape(1))
        has_scale_tensor = isinstance(loss_scale, Tensor)
        if isinstance(loss_scale, Tensor):
            sums.append(loss_scale.float().reshape(1))
        else:
            grad_scale *= loss_scale
        flat = torch.cat(_on_one_device(sums)) if sums else torch.zeros(0)
        recording = _without_values(layers, sampling_intervals, metadata)
        has_gradient = [
            layer.weights.has_gradient or layer.weights.effective.gradient is not None
            for layer in layers
        ]

        def finish(values: np.ndarray) -> Recording:
            scale = grad_scale
            if has_scale_tensor:
                scale *= float(values[-1])
                values = values[:-1]
            if loss is not None:
                recording.loss = float(values[-1])
                values = values[:-1]
            table = values.reshape(_row_count(names), sum(recording.widths))
            with np.errstate(all="ignore"):  # infinite gradients and weights are data here
                self._divide(recording, table, divisors, scale)
                recording.nonfinite = _has_nonfinite_gradient(recording, has_gradient)
            return recording

        return flat, finish

    def _divide(
        self, recording: Recording, table: np.ndarray, divisors: list[float], scale: float
    ) -> None:
        """Divide the sums in place."""
        names = recording.names
        table /= self._divisor_table(names, divisors, recording.widths, scale)
        if "update_ratio" in names:
            table[names.index("update_ratio")] /= table[-1]  # the norms of the weights
        recording.values = table[: len(names)]

    def _divisor_table(
        self, names: list[str], divisors: list[float], widths: list[int], scale: float
    ) -> np.ndarray:
        """Return the divisors in the shape of the table."""
        key = (names, divisors, widths, scale)
        if key != self._key:
            by_layer = np.array(divisors, np.float32).reshape(_row_count(names), len(widths))
            scaled = [row for row, name in enumerate(names) if name in SCALED_STATISTICS]
            by_layer[scaled] *= scale
            self._key, self._divisors = key, by_layer.repeat(widths, axis=1)
        return self._divisors


def _without_values(
    layers: Sequence[ObservedLayer], sampling_intervals: Mapping[str, int], metadata: Any
) -> Recording:
    """Return a recording whose values are still on their way to the host."""
    return Recording(
        names=list(sampling_intervals),
        values=np.zeros((0, 0), np.float32),
        nonfinite=False,
        layers=[layer.name for layer in layers],
        widths=[layer.width for layer in layers],
        sampling_intervals=list(sampling_intervals.values()),
        metadata=metadata,
    )


def _collect_sums(
    names: Sequence[str], layers: Sequence[ObservedLayer]
) -> tuple[list[Tensor], list[float]]:
    """Return the sum and the divisor of each statistic of each layer.

    The rows are those that `_row_count` counts.
    """
    sums: list[Tensor] = []
    divisors: list[float] = []
    for name in names:
        sum_and_divisor = SUM_AND_DIVISOR[name]
        for layer in layers:
            is_sampled = name in layer.statistics
            value, divisor = sum_and_divisor(layer) if is_sampled else (None, np.nan)
            if value is not None and value.shape[0] != layer.width:
                value, divisor = None, np.nan  # the conv's ``out_channels`` is wrong
            sums.append(_zeros(layer) if value is None else value)
            divisors.append(divisor)
    if "update_ratio" in names:
        for layer in layers:
            norm = layer.weights.norm_after_step
            if norm is None or norm.shape[0] != layer.width:
                norm = _zeros(layer)
            sums.append(norm)
            divisors.append(1.0)
    return sums, divisors


def _row_count(names: Sequence[str]) -> int:
    """Return the number of rows of the table.

    ``update_ratio`` adds a last row, the norms of the weights, which the host divides by.
    """
    return len(names) + ("update_ratio" in names)


def _zeros(layer: ObservedLayer) -> Tensor:
    """Return the placeholder of a value that was not measured."""
    return torch.zeros(layer.width, device=device_of(layer.conv))


def _on_one_device(parts: list[Tensor]) -> list[Tensor]:
    """Move the sums of a model that spans several devices to the device of its first conv."""
    device = parts[0].device
    return [part if part.device == device else part.to(device) for part in parts]


def _has_nonfinite_gradient(recording: Recording, has_gradient: list[bool]) -> bool:
    """Return whether a layer that got a gradient has an infinite or NaN one.

    In layers without a gradient NaN means "not measured".
    """
    if "gradient" not in recording.names:
        return False
    gradients = recording.values[recording.names.index("gradient")]
    if np.isfinite(gradients.sum()):
        return False
    return not np.isfinite(gradients[np.repeat(has_gradient, recording.widths)]).all()
