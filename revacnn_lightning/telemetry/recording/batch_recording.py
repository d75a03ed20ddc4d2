"""The statistics of one batch as a table on the host, copied in one piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.recording.layer_statistics import (
    SCALED_STATISTICS,
    SUM_AND_DIVISOR,
)
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums

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


@dataclass
class RecordingLayout:
    """Where the statistics of a batch lie in the array on the host, and their divisors.

    Rows are those that `_row_count` counts, S' of them; there are L layers with N filters.

    Attributes:
        layers: names of the layers, in forward order.
        widths: the number of filters of each layer.
        sums: the weight sums of each layer.
        positions: (S', N), positions in the flat values; the first one is always zero.
        divisors: (S', L).
        has_gradient: by layer, whether its gradient is known.
        rows: what is copied of the buffer.
        extras: tensors beside the buffer, whose values follow.
        divisor_key, divisor_table: the divisors of the last batch of this layout, which rarely
            change, in the shape of the positions; see `RecordingAssembler`.
    """

    layers: list[str]
    widths: list[int]
    sums: list[WeightSums]
    positions: np.ndarray
    divisors: np.ndarray
    has_gradient: list[bool]
    rows: Tensor
    extras: list[Tensor]
    divisor_key: Any = None
    divisor_table: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))


class RecordingAssembler:
    """Assembles recordings.

    Attributes:
        layout: that of the batch to assemble; None before the first one.
    """

    def __init__(self) -> None:
        self.layout: RecordingLayout | None = None

    def update_layout(
        self,
        names: Sequence[str],
        layers: Sequence[ObservedLayer],
        buffer: FlatBuffer,
        batch: BatchState,
    ) -> bool:
        """Adopt the layout of this batch.

        Returns:
            Whether it is that of other batches with the same events, too: all sums are in slots.

        Args:
            names: the statistics to record.
            layers: the layers, in forward order.
            buffer: the buffer with the slots.
            batch: decides which statistics are sampled of a layer.
        """
        self.layout = _lay_out(names, layers, buffer, batch)
        return not self.layout.extras

    def assemble(
        self,
        sampling_intervals: Mapping[str, int],
        *,
        grad_scale: float,
        loss_scale: Tensor | float,
        loss: Tensor | None,
        metadata: Any,
    ) -> tuple[Tensor, Callable[[np.ndarray], Recording]]:
        """Collect the sums of a batch, whose layout is known.

        Args:
            sampling_intervals: the interval of each statistic to record.
            grad_scale: what the loss was multiplied by, apart from ``loss_scale``.
            loss_scale: the loss scale of mixed precision; a tensor is copied to the host too.
            loss: a scalar that is copied to the host with the sums.
            metadata: the metadata of the recording.

        Returns:
            One tensor on the device, and the function that makes a recording of its host copy.
        """
        layout = self.layout
        assert layout is not None
        extras = list(layout.extras)
        if loss is not None:
            extras.append(loss.detach().float().reshape(1))
        has_scale_tensor = isinstance(loss_scale, Tensor)
        if isinstance(loss_scale, Tensor):
            extras.append(loss_scale.float().reshape(1))
        else:
            grad_scale *= loss_scale
        flat = torch.cat(_on_one_device([layout.rows, *extras])) if extras else layout.rows
        update_divisors = [weights.update_divisor for weights in layout.sums]
        recording = Recording(
            names=list(sampling_intervals),
            values=np.zeros((0, 0), np.float32),
            nonfinite=False,
            layers=layout.layers,
            widths=layout.widths,
            sampling_intervals=list(sampling_intervals.values()),
            metadata=metadata,
        )

        def finish(values: np.ndarray) -> Recording:
            scale = grad_scale
            if has_scale_tensor:
                scale *= float(values[-1])
                values = values[:-1]
            if loss is not None:
                recording.loss = float(values[-1])
            table = values.take(layout.positions)
            with np.errstate(all="ignore"):  # infinite gradients and weights are data here
                self._divide(recording, table, layout, update_divisors, scale)
                recording.nonfinite = _has_nonfinite_gradient(recording, layout.has_gradient)
            return recording

        return flat, finish

    def _divide(
        self,
        recording: Recording,
        table: np.ndarray,
        layout: RecordingLayout,
        update_divisors: list[float],
        scale: float,
    ) -> None:
        """Divide the sums in place."""
        names = recording.names
        table /= self._divisor_table(names, layout, update_divisors, scale)
        if "update_ratio" in names:
            table[names.index("update_ratio")] /= table[-1]  # the norms of the weights
        if "firing" in names and "activation" in names:
            # How many pixels are positive is known differently where some are NaN.
            table[names.index("firing")][np.isnan(table[names.index("activation")])] = np.nan
        recording.values = table[: len(names)]

    def _divisor_table(
        self, names: list[str], layout: RecordingLayout, update_divisors: list[float], scale: float
    ) -> np.ndarray:
        """Return the divisors in the shape of the table."""
        key = (names, update_divisors, scale)
        if key != layout.divisor_key:
            by_layer = layout.divisors.copy()
            scaled = [row for row, name in enumerate(names) if name in SCALED_STATISTICS]
            by_layer[scaled] *= scale
            if "update_ratio" in names:
                by_layer[names.index("update_ratio")] *= update_divisors
            layout.divisor_key = key
            layout.divisor_table = by_layer.repeat(layout.widths, axis=1)
        return layout.divisor_table


def _lay_out(
    names: Sequence[str], layers: Sequence[ObservedLayer], buffer: FlatBuffer, batch: BatchState
) -> RecordingLayout:
    """Return the layout of a batch that has ended.

    Sums that are not in the buffer follow it. The rows are those that `_row_count` counts.
    """
    rows = buffer.rows_until({*names, "norm_after_step"} if "update_ratio" in names else set(names))
    extras: list[Tensor] = []
    positions: list[np.ndarray] = []
    divisors: list[float] = []
    end = len(rows)
    for name in names if "update_ratio" not in names else (*names, "norm_after_step"):
        sum_and_divisor = SUM_AND_DIVISOR[name]
        for layer in layers:
            is_sampled = name in batch.sampled_statistics(layer.name) or name == "norm_after_step"
            value, divisor = sum_and_divisor(layer) if is_sampled else (None, np.nan)
            if value is not None and value.shape[0] != layer.width:
                value, divisor = None, np.nan  # the conv's ``out_channels`` is wrong
            start = 0 if value is None else buffer.slot_offset(value)
            if value is not None and start is None:
                extras.append(value.float())  # of a network in double precision, too
                start, end = end, end + layer.width
            assert start is not None
            positions.append(np.arange(layer.width) * (value is not None) + start)
            divisors.append(divisor)
    row_count, widths = _row_count(names), [layer.width for layer in layers]
    positions.append(np.zeros(0, np.intp))  # there may be none
    return RecordingLayout(
        layers=[layer.name for layer in layers],
        widths=widths,
        sums=[layer.weights for layer in layers],
        positions=np.concatenate(positions).reshape(row_count, sum(widths)),
        divisors=np.array(divisors, np.float32).reshape(row_count, len(layers)),
        has_gradient=[
            (layer.weights.has_gradient or layer.weights.effective.gradient is not None)
            and not layer.weights.is_gradient_lost
            for layer in layers
        ],
        rows=rows,
        extras=extras,
    )


def _row_count(names: Sequence[str]) -> int:
    """Return the number of rows of the table.

    ``update_ratio`` adds a last row, the norms of the weights, which the host divides by.
    """
    return len(names) + ("update_ratio" in names)


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
