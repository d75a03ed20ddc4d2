"""Reads logged metrics without making the training wait for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.telemetry.recording.host_copy import HostCopy

__all__ = ["METRICS_INTERVAL", "MetricReader", "is_on_gpu", "is_scalar", "to_float"]

METRICS_INTERVAL = 10  # batches between two readings while a viewer is attached

Metrics = dict[str, float]


def is_on_gpu(value: object) -> TypeGuard[Tensor]:
    """Return whether reading a value would wait for a GPU."""
    return isinstance(value, Tensor) and value.is_cuda


def is_scalar(value: object) -> bool:
    """Return whether a value is a number or a tensor of one number."""
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def to_float(value: Tensor | float) -> float:
    """Return a scalar as a float. This waits for the device of a tensor."""
    return float(value.detach() if isinstance(value, Tensor) else value)


class MetricReader:
    """Copies metrics to the host.

    Attributes:
        newest: the newest metrics that have arrived.
    """

    def __init__(self) -> None:
        self.newest: Metrics = {}
        self._copy: HostCopy[tuple[int, Metrics]] = HostCopy()

    def read(self, step: int, metrics: Mapping[str, Tensor | float]) -> list[tuple[int, Metrics]]:
        """Start to read the metrics of a batch; return those that have arrived, as `pop_arrived`.

        Args:
            step: the batch.
            metrics: scalars.
        """
        on_device = {name: value for name, value in metrics.items() if is_on_gpu(value)}
        known = {name: to_float(one) for name, one in metrics.items() if name not in on_device}
        arrived = self.pop_arrived()
        if not on_device:
            return [*arrived, self._set_newest(step, known)]
        scalars = [value.detach().float().reshape(()) for value in on_device.values()]
        flat = torch.stack([one.to(scalars[0].device) for one in scalars])
        older = self._copy.send(flat, self._finish(step, known, list(on_device)))
        return arrived if older is None else [*arrived, older]

    def pop_arrived(self) -> list[tuple[int, Metrics]]:
        """Return the metrics that have arrived since the last call, with the batch of each."""
        return self._copy.completed() if self._copy.has_pending else []

    def _finish(
        self, step: int, known: Mapping[str, float], names: list[str]
    ) -> Callable[[np.ndarray], tuple[int, Metrics]]:
        def finish(values: np.ndarray) -> tuple[int, Metrics]:
            copied = dict(zip(names, values.tolist(), strict=True))
            return self._set_newest(step, {**known, **copied})

        return finish

    def _set_newest(self, step: int, metrics: Mapping[str, float]) -> tuple[int, Metrics]:
        self.newest = dict(metrics)
        return step, self.newest
