"""A run as text and as HTML, for notebooks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from revacnn_lightning.protocol.message_html import card_html, table_html

if TYPE_CHECKING:
    from revacnn_lightning.client.batch import Batch
    from revacnn_lightning.client.run_messages import NonblockingRunClient
    from revacnn_lightning.protocol.messages import Status

__all__ = ["batch_html", "describe_run_state", "run_html"]

MAX_LAYERS = 60  # rows; a network may have hundreds


def describe_run_state(run: NonblockingRunClient) -> str:
    """Return what a run is doing, in words."""
    status, snapshot = run.status, run.snapshot
    if status is None:
        return "attached"
    step = status.step if snapshot is None else max(status.step, snapshot.step)
    detail = f" ({status.detail})" if status.detail else ""
    return f"{_state_now(run, status)}{detail}, batch {step:,}"


def _state_now(run: NonblockingRunClient, status: Status) -> str:
    """Return the last known state, and what contradicts it."""
    if status.state in ("finished", "failed"):
        return status.state
    silence = run.seconds_since_last_message()
    last = time.strftime("%H:%M:%S", time.localtime(time.time() - silence))
    if run.has_ended():
        return f"exited unexpectedly, last message at {last}"
    if run.seconds_unreachable():
        return f"unreachable, last message at {last}: {status.state}"
    if problem := run.ranks.problem():
        return f"{status.state}, but {problem}"
    return f"{status.state}, but no message since {last}" if run.is_silent() else status.state


def run_html(run: NonblockingRunClient) -> str:
    """Return the state of a run and its layers as HTML."""
    connection, structure, batch = run.connection, run.structure, run.batch
    title = f"{connection.name or connection.model or 'Run'} · {connection.run}"
    facts = [describe_run_state(run)]
    if structure is not None:
        facts.append(f"{structure.parameter_count:,} parameters")
    if batch is not None and batch.loss is not None:
        facts.append(f"loss {batch.loss:.4g}")
    notes = ["; ".join(facts)]
    if batch is None and structure is not None:
        rows: list[tuple[str, ...]]
        rows = [(layer.name, str(layer.out_channels)) for layer in structure.layers]
        return card_html(title, _limited(("layer", "filters"), rows), notes)
    return card_html(title, "" if batch is None else _layers(batch), notes)


def batch_html(batch: Batch) -> str:
    """Return the means of the statistics of each layer as HTML."""
    loss = "" if batch.loss is None else f", loss {batch.loss:.4g}"
    return card_html(f"Batch {batch.step:,}, epoch {batch.epoch}{loss}", _layers(batch))


def _layers(batch: Batch) -> str:
    columns = ("layer", "filters", *(f"mean {name}" for name in batch.snapshot.statistics))
    rows = []
    for layer in batch.structure.layers:
        means = (_mean(values) for values in batch[layer.name].values())
        rows.append((layer.name, str(len(layer.filter_ids)), *means))
    return _limited(columns, rows)


def _limited(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def shown() -> Iterator[tuple[str, ...]]:
        yield from rows[:MAX_LAYERS]
        if len(rows) > MAX_LAYERS:
            yield f"and {len(rows) - MAX_LAYERS} more", *[""] * (len(columns) - 1)

    return table_html(columns, shown())


def _mean(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.mean():.3g}" if len(finite) else "–"
