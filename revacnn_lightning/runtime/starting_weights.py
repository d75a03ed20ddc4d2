"""Where the filters were at the first batch of a run, to know how far they have moved."""

from __future__ import annotations

import numpy as np
from torch import nn

from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.conv import filter_rows
from revacnn_lightning.telemetry.inspection.downsampling import project_features
from revacnn_lightning.telemetry.module_tree import named_modules_of

__all__ = ["StartingWeights"]


class StartingWeights:
    """Keeps at most 64 numbers of each filter: a projection that preserves distances.

    It is taken once, after the first batch of a run that begins at batch 0: about 7 MB for the
    27,000 filters of a ResNet-50. An edit that resizes a layer changes what the numbers mean. Its
    start is forgotten then, but not how far it had moved when that was last measured.

    Args:
        model: the network.
        recorder: knows its layers.
    """

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        self._model = model
        self._recorder = recorder
        self._start: dict[str, np.ndarray] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._moved: dict[str, float] = {}

    def keep(self) -> None:
        """Keep the filters as they are: the start."""
        for layer in self._recorder.layers:
            features = self.features(layer)
            if features is not None:
                self._start[layer], self._shapes[layer] = features, self._shape(layer)

    def forget_resized(self) -> None:
        """Forget the start of all layers that an edit has resized."""
        present = set(self._recorder.layers)
        for layer, shape in list(self._shapes.items()):
            if layer not in present or self._shape(layer) != shape:
                del self._shapes[layer], self._start[layer]

    def features(self, layer: str) -> np.ndarray | None:
        """Return the projection of a layer's filters, float32 (C, at most 64).

        None if the coefficients are not known: before the first forward of a layer that computes
        them.
        """
        weight = self._recorder.current_weight(layer)
        conv = dict(named_modules_of(self._model)).get(layer)
        if weight is None or conv is None:
            return None
        return project_features(filter_rows(weight.detach(), conv)).cpu().numpy()  # type: ignore[arg-type]

    def moved(self, layer: str, features: np.ndarray) -> float:
        """Return ‖w - w₀‖ / ‖w₀‖ of the layer's median filter, 0 or more.

        If an edit has resized the layer, it is what was measured before the edit. NaN if that is
        unknown, or if all filters started as zeros.
        """
        start = self._start.get(layer)
        if start is None or start.shape != features.shape:
            return self._moved.get(layer, float("nan"))
        length = np.linalg.norm(start, axis=1)
        known = length > 0
        if not known.any():
            return float("nan")
        distance = np.linalg.norm(features - start, axis=1)[known] / length[known]
        self._moved[layer] = float(np.median(distance))
        return self._moved[layer]

    def _shape(self, layer: str) -> tuple[int, ...]:
        weight = self._recorder.current_weight(layer)
        return () if weight is None else tuple(weight.shape)
