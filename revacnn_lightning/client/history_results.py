"""The history of a run as short JSON: curves in few points, and the newest changes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from revacnn_lightning.client.tool_results import number
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import History, HistorySeries

__all__ = ["history"]

MAX_EDITS = 30
MAX_REQUESTS = 30
MAX_METRICS = 20


def history(found: History, layer: str | None, points: int) -> dict[str, Any]:
    """Return the curves of a run, and with a layer those of its statistics."""
    curves = {
        name: _curve(found.scalars, column, points)
        for column, name in enumerate(found.scalar_names)
    }
    metrics = list(found.metrics.items())
    rates = range(found.learning_rates.values.shape[1])
    facts: dict[str, Any] = {
        "curves": curves,
        "metrics": {name: _curve(one, 0, points) for name, one in metrics[:MAX_METRICS]},
        "metrics_left_out": max(0, len(metrics) - MAX_METRICS),
        "learning_rates": [_curve(found.learning_rates, rate, points) for rate in rates],
        "edits": [{"step": one.step, "title": one.title} for one in found.edits[-MAX_EDITS:]],
        "requests": [_request(one) for one in found.requests[-MAX_REQUESTS:]],
    }
    if layer in found.layer_names:
        column = found.layer_names.index(layer)
        facts["layer"] = {
            name: _curve(series, column, points) for name, series in found.layers.items()
        }
    return facts


def _curve(series: HistorySeries, column: int, points: int) -> dict[str, Any]:
    """Return the means of a column over groups of adjacent rows, each with its last step."""
    rows = len(series.steps)
    steps, values = [], []
    for group in np.array_split(np.arange(rows), min(points, rows)) if rows else []:
        column_values = series.values[group, column].astype(np.float64)
        weights = np.asarray(series.weights, np.float64)[group] * np.isfinite(column_values)
        total = weights.sum()
        mean = (np.nan_to_num(column_values) * weights).sum() / total if total else np.nan
        steps.append(int(series.steps[group[-1]]))
        values.append(number(mean))
    return {"steps": steps, "values": values}


def _request(one: RequestOutcome) -> dict[str, Any]:
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time)),
        "step": one.step,
        "title": one.title,
        "state": one.state,
        "who": one.who,
        "detail": one.detail,
    }
