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
    "message_to_dict",
    "round_array_for_json",
    "round_for_json",
    "summarize_run_identity",
    "summarize_statistics",
    "summarize_status",
    "summarize_structure",
    "summarize_trial",
]  # fmt: skip

DIGITS = 4
MAX_FILTERS = 256  # whose values are listed


def message_to_dict(message: Struct) -> dict[str, Any]:
    """Return a message without arrays as a dictionary that JSON can encode."""
    fields: dict[str, Any] = _finite(msgspec.to_builtins(message))
    return {name: value for name, value in fields.items() if name not in ("id", "type")}


def _finite(value: Any) -> Any:
    """Return a value with None in the place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summarize_run_identity(connection: Connection) -> dict[str, Any]:
    """Return what identifies a run: its name, model, start, machine and process, not its key."""
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(connection.start_time))
    return {
        "run": connection.run,
        "name": connection.name,
        "model": connection.model,
        "started": started,
        "host": connection.hostname,
        "pid": connection.pid,
    }


def summarize_status(run: Run) -> dict[str, Any]:
    """Return the state of a run, and the progress and metrics of its last batch."""
    known = {} if run.status is None else message_to_dict(run.status)
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
            "loss": round_for_json(snapshot.loss),
            "metrics": {name: round_for_json(value) for name, value in snapshot.metrics.items()},
            "learning_rates": [round_for_json(rate) for rate in snapshot.learning_rates],
            "batches_per_second": round_for_json(snapshot.batches_per_second),
            "nonfinite_gradients": snapshot.nonfinite_gradients,
        }
    return known


def summarize_structure(run: Run) -> dict[str, Any]:
    """Return the layers of a network, their connections by name, and the version."""
    network = run.structure
    if network is None:
        return {}
    names = [layer.name for layer in network.layers]
    layers = [message_to_dict(layer) for layer in network.layers]
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


def summarize_statistics(batch: Batch, layer: str | None) -> dict[str, Any]:
    """Return the values of a layer's filters, or a summary of every layer."""
    facts: dict[str, Any] = {"step": batch.step, "version": batch.version}
    if layer is not None:
        values = {
            name: round_array_for_json(row[:MAX_FILTERS]) for name, row in batch[layer].items()
        }
        left_out = max(0, len(next(iter(batch[layer].values()), ())) - MAX_FILTERS)
        more = {"filters_left_out": left_out} if left_out else {}
        return {**facts, "layer": layer, "filters": values, **more}
    return {**facts, "layers": {name: _summary(values) for name, values in batch.items()}}


def _summary(values: dict[str, np.ndarray]) -> dict[str, Any]:
    summary: dict[str, Any] = {"filters": len(next(iter(values.values()), ()))}
    for name, row in values.items():
        finite = row[np.isfinite(row)]
        if len(finite):
            summary[name] = {
                "mean": round_for_json(finite.mean()),
                "max": round_for_json(finite.max()),
            }
    if "activation" in values:
        summary["silent_filters"] = int((values["activation"] == 0).sum())
    return summary


def summarize_trial(trial: Trial) -> dict[str, Any]:
    """Return what a trial has found: the change of the loss, edited less unedited."""
    return {
        "titles": trial.titles,
        "batches": len(trial.losses),
        "change": round_for_json(trial.change),
        "interval": round_array_for_json(trial.interval),
        "first_losses": round_array_for_json([trial.losses[0], trial.edited_losses[0]]),
        "last_losses": round_array_for_json([trial.losses[-1], trial.edited_losses[-1]]),
        "seconds": round_for_json(trial.seconds),
        "megabytes": round_for_json(trial.megabytes),
    }


def round_for_json(value: Any) -> float | None:
    """Return a number rounded to few digits; None for NaN and infinity, which JSON lacks."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.{DIGITS}g}")


def round_array_for_json(values: Any) -> Any:
    """Return an array as nested lists of numbers, each as `round_for_json` returns it."""
    if np.ndim(values):
        return [round_array_for_json(one) for one in values]
    return round_for_json(values)
