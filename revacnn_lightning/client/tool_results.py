"""What the tools of agents return, as plain JSON: numbers in few digits, no arrays of pixels."""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from revacnn_lightning.client.batch import Batch
from revacnn_lightning.client.run import Run
from revacnn_lightning.client.trial import Trial
from revacnn_lightning.protocol.connection_file import Connection

__all__ = [
    "describe_run", "number", "numbers", "plain", "statistics", "status", "structure",
    "trial",
]  # fmt: skip

DIGITS = 4
MAX_FILTERS = 256  # whose values are listed


def plain(message: Struct) -> dict[str, Any]:
    """Return a message without arrays as a dictionary."""
    fields: dict[str, Any] = _finite(msgspec.to_builtins(message))
    return {name: value for name, value in fields.items() if name not in ("id", "type")}


def _finite(value: Any) -> Any:
    """Return a value with None in the place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_run(connection: Connection) -> dict[str, Any]:
    """Return how a user knows a run. Its key is left out."""
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(connection.start_time))
    return {
        "run": connection.run,
        "name": connection.name,
        "model": connection.model,
        "started": started,
        "host": connection.hostname,
        "pid": connection.pid,
    }


def status(run: Run) -> dict[str, Any]:
    """Return the state of a run, and what is known of its last batch."""
    known = {} if run.status is None else plain(run.status)
    known.pop("time", None)
    for losses in ("losses", "edited_losses"):  # of each batch; the trial has their difference
        (known.get("trial") or {}).pop(losses, None)
    if run.batch is not None:
        snapshot = run.batch.snapshot
        known |= {
            "step": max(snapshot.step, known.get("step", 0)),
            "epoch": snapshot.epoch,
            "batch_index": snapshot.batch_index,
            "batches_per_epoch": snapshot.batches_per_epoch,
            "max_epochs": snapshot.max_epochs,
            "loss": number(snapshot.loss),
            "metrics": {name: number(value) for name, value in snapshot.metrics.items()},
            "learning_rates": [number(rate) for rate in snapshot.learning_rates],
            "batches_per_second": number(snapshot.batches_per_second),
            "nonfinite_gradients": snapshot.nonfinite_gradients,
        }
    return known


def structure(run: Run) -> dict[str, Any]:
    """Return the layers of a network, their connections by name, and the version."""
    network = run.structure
    if network is None:
        return {}
    names = [layer.name for layer in network.layers]
    layers = [plain(layer) for layer in network.layers]
    for layer in layers:
        del layer["filter_ids"]
    return {
        "version": network.version,
        "model": network.model,
        "parameter_count": network.parameter_count,
        "undoable": network.undoable,
        "redoable": network.redoable,
        "layers": layers,
        "edges": [[names[i], names[j]] for i, j in network.edges],
    }


def statistics(batch: Batch, layer: str | None) -> dict[str, Any]:
    """Return the values of a layer's filters, or a summary of every layer."""
    facts: dict[str, Any] = {"step": batch.step, "version": batch.version}
    if layer is not None:
        values = {name: numbers(row[:MAX_FILTERS]) for name, row in batch[layer].items()}
        left_out = max(0, len(next(iter(batch[layer].values()), ())) - MAX_FILTERS)
        more = {"filters_left_out": left_out} if left_out else {}
        return {**facts, "layer": layer, "filters": values, **more}
    return {**facts, "layers": {name: _summary(values) for name, values in batch.items()}}


def _summary(values: dict[str, np.ndarray]) -> dict[str, Any]:
    summary: dict[str, Any] = {"filters": len(next(iter(values.values()), ()))}
    for name, row in values.items():
        finite = row[np.isfinite(row)]
        if len(finite):
            summary[name] = {"mean": number(finite.mean()), "max": number(finite.max())}
    if "activation" in values:
        summary["silent_filters"] = int((values["activation"] == 0).sum())
    return summary


def trial(found: Trial) -> dict[str, Any]:
    """Return what a trial has found: the change of the loss, edited less unedited."""
    return {
        "titles": found.titles,
        "batches": len(found.losses),
        "change": number(found.change),
        "interval": numbers(found.interval),
        "first_losses": numbers([found.losses[0], found.edited_losses[0]]),
        "last_losses": numbers([found.losses[-1], found.edited_losses[-1]]),
        "seconds": number(found.seconds),
        "megabytes": number(found.megabytes),
    }


def number(value: Any) -> float | None:
    """Return a number in few digits; None for what JSON has no number for."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.{DIGITS}g}")


def numbers(values: Any) -> Any:
    """Return an array as lists of numbers in few digits."""
    if np.ndim(values):
        return [numbers(one) for one in values]
    return number(values)
