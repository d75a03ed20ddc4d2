"""Examines a layer: which filters are dead for good, twins, or clustered."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.diagnostics.clusters import measure_clusters
from revacnn_lightning.diagnostics.color import find_single_color_filters
from revacnn_lightning.diagnostics.twins import TWIN, find_twins, r_squared_from_others
from revacnn_lightning.protocol.evidence import LayerEvidence, TwinEvidence
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.provably_dead_filters import ProvablyDeadFilters
from revacnn_lightning.runtime.starting_weights import StartingWeights
from revacnn_lightning.telemetry import Recorder

__all__ = ["MAX_UNITS", "RedundancyExaminer", "evenly_spaced_filter_indices"]

MAX_UNITS = 256  # of a layer that are compared; each further one costs more than the one before
MIN_SAMPLES = 64  # fewer activations say nothing about twins


def evenly_spaced_filter_indices(filter_count: int) -> Tensor:
    """Return the indices of at most `MAX_UNITS` evenly spaced filters of a layer, int64."""
    count = min(MAX_UNITS, filter_count)
    return torch.arange(count) * filter_count // max(1, count)


class RedundancyExaminer:
    """Finds out which filters of a layer are dead for good, twins, redundant or clustered.

    It runs between two batches.

    Cost for C filters and n samples: about n·C² + C³ multiplications, at most 0.1 s on one core.

    Args:
        model: the network.
        recorder: knows its layers.
        provably_dead_filters: find what is dead for good.
        starting_weights: the weights at the start of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        recorder: Recorder,
        provably_dead_filters: ProvablyDeadFilters,
        starting_weights: StartingWeights,
    ) -> None:
        self._model = model
        self._recorder = recorder
        self._provably_dead_filters = provably_dead_filters
        self._start = starting_weights

    @property
    def is_traced(self) -> bool:
        """Whether filters can be certified: the network is traced."""
        return self._provably_dead_filters.is_traced

    def examine(self, layer: str, samples: np.ndarray, context: BatchContext) -> LayerEvidence:
        """Return which filters of a layer are dead for good, twins, redundant or clustered.

        Args:
            layer: the name of the layer.
            samples: activations of the `evenly_spaced_filter_indices` at n positions, (n, units);
                of shape (0, 0) if the layer is not observed.
            context: the batch that was trained last.
        """
        width = self._recorder.widths[self._recorder.layers.index(layer)]
        units = evenly_spaced_filter_indices(width).numpy()
        dead, note = self._provably_dead_filters.find_in_layer(layer)
        measures: dict[str, Any] = {}
        if samples.shape[0] >= MIN_SAMPLES and samples.shape[1] == len(units):
            measures |= _compare(samples, units)
        features = self._start.project_present_filters(layer)
        if features is not None:
            clusters = measure_clusters(features[units])
            measures |= vars(clusters) | {"moved": self._start.relative_change(layer)}
        return LayerEvidence(
            context.run, context.version, context.step, layer, width, dead, note,
            examined=len(units), single_color=self._single_color(layer), **measures,
        )  # fmt: skip

    def _single_color(self, layer: str) -> int:
        """Return how many filters respond to a single color; -1 if they read no colors."""
        weight = self._recorder.current_weight(layer)
        conv = self._model.get_submodule(layer)
        is_colored = isinstance(conv, nn.Conv2d) and weight is not None and weight.shape[1] == 3
        if not is_colored or weight is None:
            return -1
        return int(
            find_single_color_filters(weight.detach().movedim(1, 3).float().cpu().numpy()).sum()
        )


def _compare(samples: np.ndarray, units: np.ndarray) -> dict[str, Any]:
    """Return the twins among units, and those that the others explain."""
    twins = [
        TwinEvidence(units[group.units].tolist(), group.min_r_squared, group.scales)
        for group in find_twins(samples)
    ]
    explained = r_squared_from_others(samples)
    redundant = units[np.nan_to_num(explained, nan=0.0) >= TWIN].tolist()
    return {"twins": twins, "redundant": redundant, "samples": len(samples)}
