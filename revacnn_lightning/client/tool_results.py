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
from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.inspections import FilterInspection, VolumeSlice

__all__ = [
    "describe_run", "inspection", "plain", "statistics", "status", "structure",
]  # fmt: skip

DIGITS = 4


def plain(message: Struct) -> dict[str, Any]:
    """Return a message without arrays as a dictionary."""
    fields: dict[str, Any] = msgspec.to_builtins(message)
    return {name: value for name, value in fields.items() if name not in ("id", "type")}


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
    if run.batch is not None:
        snapshot = run.batch.snapshot
        known |= {
            "step": max(snapshot.step, known.get("step", 0)),
            "epoch": snapshot.epoch,
            "batch_index": snapshot.batch_index,
            "batches_per_epoch": snapshot.batches_per_epoch,
            "max_epochs": snapshot.max_epochs,
            "loss": _number(snapshot.loss),
            "metrics": {name: _number(value) for name, value in snapshot.metrics.items()},
            "learning_rates": [_number(rate) for rate in snapshot.learning_rates],
            "batches_per_second": _number(snapshot.batches_per_second),
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
        values = {name: [_number(one) for one in row] for name, row in batch[layer].items()}
        return {**facts, "layer": layer, "filters": values}
    return {**facts, "layers": {name: _summary(values) for name, values in batch.items()}}


def _summary(values: dict[str, np.ndarray]) -> dict[str, Any]:
    summary: dict[str, Any] = {"filters": len(next(iter(values.values()), ()))}
    for name, row in values.items():
        finite = row[np.isfinite(row)]
        if len(finite):
            summary[name] = {"mean": _number(finite.mean()), "max": _number(finite.max())}
    if "activation" in values:
        summary["silent_filters"] = int((values["activation"] == 0).sum())
    return summary


def inspection(found: FilterInspection) -> dict[str, Any]:
    """Return what activates a filter, without the pixels.

    A signal is an image with a height of 1. Of volumes, the slices of each box are added.
    """
    of_volumes = {} if found.volume is None else _of_volumes(found, found.volume)
    return {
        "step": found.step,
        "version": found.version,
        "layer": found.layer,
        "filter": found.filter,
        "receptive_field": list(found.receptive_field),
        "response": _number(found.response),
        "response_box": list(found.box),
        "image_size": list(found.image_size),
        "top_images": [
            {"step": one.step, "response": _number(one.response), "box": list(one.box)}
            | _slices(one.volume)
            for one in found.top_images
        ],
        "notes": [note for note in (found.top_images_note, found.attribution_refusal) if note],
        **of_volumes,
    }


def _of_volumes(found: FilterInspection, volume: VolumeSlice) -> dict[str, Any]:
    return {
        "receptive_field_depth": found.receptive_field_depth,
        "image_depth": volume.count,
        **_slices(volume),
    }


def _slices(volume: VolumeSlice | None) -> dict[str, Any]:
    """Return the first slice of a box, and the one behind its last."""
    return {} if volume is None else {"slices": [volume.front, volume.back]}


def _number(value: Any) -> float | None:
    """Return a number in few digits; None for what JSON has no number for."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.{DIGITS}g}")
