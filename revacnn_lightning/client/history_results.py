"""The history of a run as short JSON: curves in few points, and the newest changes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from revacnn_lightning.client.tool_results import round_for_json
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import History, HistorySeries

__all__ = ["summarize_history"]

MAX_EDITS = 30
MAX_REQUESTS = 30
MAX_METRICS = 20


def summarize_history(history: History, layer: str | None, max_points: int) -> dict[str, Any]:
    """Return the curves of a run in at most ``max_points`` points, and those of one layer."""
    curves = {
        name: _curve(history.scalars, column, max_points)
        for column, name in enumerate(history.scalar_names)
    }
    metrics = list(history.metrics.items())
    rates = range(history.learning_rates.values.shape[1])
    facts: dict[str, Any] = {
        "curves": curves,
        "metrics": {name: _curve(one, 0, max_points) for name, one in metrics[:MAX_METRICS]},
        "metrics_left_out": max(0, len(metrics) - MAX_METRICS),
        "learning_rates": [_curve(history.learning_rates, rate, max_points) for rate in rates],
        "edits": [{"step": one.step, "title": one.title} for one in history.edits[-MAX_EDITS:]],
        "requests": [_request(one) for one in history.requests[-MAX_REQUESTS:]],
    }
    if layer in history.layer_names:
        column = history.layer_names.index(layer)
        facts["layer"] = {
            name: _curve(series, column, max_points) for name, series in history.layers.items()
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
        values.append(round_for_json(mean))
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
