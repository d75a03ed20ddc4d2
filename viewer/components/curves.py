"""The curves that charts show, as they were recorded: without smoothing, in batches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from revacnn_lightning.history.time_series import TimeSeries

from ..runs.metric_names import LOSS, group_by_family, metric_phase
from ..runs.run_state import RunState

__all__ = [
    "Curve",
    "distinct_learning_rate_curves",
    "layer_curves",
    "metric_family_curves",
    "training_loss_curve",
]

MAX_CURVES = 6  # metrics of a family
MAX_GROUPS = 8  # parameter groups


class Curve(NamedTuple):
    """Values over the batches, both arrays (n,)."""

    label: str
    steps: np.ndarray
    values: np.ndarray


def training_loss_curve(state: RunState) -> Curve:
    """Return the curve of the loss of every recorded batch."""
    return _column(state.histories.scalars, 0, "train")


def metric_family_curves(state: RunState, metric_family: str) -> list[Curve]:
    """Return the curves of a family of metrics; for the loss, that of every batch is first.

    A training without a single loss, such as a GAN, logs several: they take its place.
    """
    loss = training_loss_curve(state)
    has_loss = metric_family == LOSS and len(loss.steps) > 0
    curves = [loss] if has_loss else []
    for name in _logged_names(state, metric_family):
        if not has_loss or metric_phase(name) not in ("", "train"):
            curves.append(_column(state.histories.metrics[name], 0, name))
    return [curve for curve in curves if len(curve.steps)][: MAX_CURVES + has_loss]


def distinct_learning_rate_curves(state: RunState) -> list[Curve]:
    """Return one curve per distinct learning rate; groups with equal rates share it."""
    rates = state.histories.learning_rates
    steps, rows = rates.steps.copy(), rates.rows[:, :MAX_GROUPS].astype(float)
    curves: list[Curve] = []
    for k, values in enumerate(rows.T):
        if not any(np.array_equal(values, one.values, equal_nan=True) for one in curves):
            curves.append(Curve(f"group {k}", steps, values.copy()))
    return curves


def layer_curves(state: RunState, statistic: str) -> list[Curve]:
    """Return the mean of a statistic over the filters of each layer."""
    structure, history = state.structure, state.histories.layers[statistic]
    if structure is None or history.width != len(structure.layers):
        return []
    steps, columns = history.steps.copy(), history.rows.T.astype(float)
    names = [layer.name for layer in structure.layers]
    return [Curve(name, steps, column) for name, column in zip(names, columns, strict=True)]


def _column(history: TimeSeries, column: int, label: str) -> Curve:
    values = history.rows[:, column].astype(float)
    finite = np.isfinite(values)
    return Curve(label, history.steps[finite].copy(), values[finite])


def _logged_names(state: RunState, metric: str) -> list[str]:
    """Return the logged metrics of a family; for the loss, if it has none, all named a loss."""
    by_family = group_by_family(state.histories.metrics)
    names = by_family.get(metric, [])
    if metric != LOSS or names:
        return names
    losses = [name for key, members in by_family.items() if LOSS in key.lower() for name in members]
    return losses or next((members for members in by_family.values() if members), [])
