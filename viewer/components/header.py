"""The header of the page: the run, its status and its newest figures."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import Snapshot, Structure

from ..rendering.formatting import format_count, format_number, format_time_of_day
from ..runs.run_follower import RunHealth
from ..runs.run_state import RunState
from .html_panel import HtmlPanel

__all__ = ["Header"]

MAX_METRICS = 2
# Common names of the training loss, which has its own field.
LOSS_NAMES = frozenset({"loss", "train_loss", "train/loss", "train_loss_step", "loss_step"})
MOVING_KINDS = ("training", "validating", "connecting")


class Header(HtmlPanel):
    part = "header"

    def content(self) -> dict[str, Any]:
        selection = self.tab.run_selection
        health = selection.follower.health()
        state, structure = self.tab.state, self.tab.structure
        if state is None:
            run = "none"
        else:
            run = "connecting" if structure is None else "attached"
        current, next_run = selection.follower.run_id, selection.next_run()
        return {
            "run": run,
            "kind": health.kind,
            "status": health.text,
            "ended": health.has_ended,
            "motionless": health.kind not in MOVING_KINDS,
            "end_notice": _end_notice(health, structure),
            "network_notice": health.text if run == "connecting" else _missing_layers(structure),
            "problem": selection.problem,
            "model": structure.model if structure is not None else "",
            "fields": _fields(state) if state is not None else [],
            "current_run": current,
            "runs": [
                {**_run_label(one), "current": one.run == current}
                for one in selection.available_runs()
            ],
            "next_run": None if next_run is None else _run_label(next_run),
        }


def _run_label(connection: Connection) -> dict[str, Any]:
    """Return the id of a run and a label: its model and start time."""
    started = format_time_of_day(connection.start_time)[:5]
    return {"id": connection.run, "label": f"{connection.model or connection.run} · {started}"}


def _end_notice(health: RunHealth, structure: Structure | None) -> str:
    """Return the notice over the network view of a run that has ended."""
    if not health.has_ended:
        return ""
    name = "This run" if structure is None else structure.model
    return f"{name} {health.text}. Showing the last recorded state."


def _missing_layers(structure: Structure | None) -> str:
    """Return why the network view is empty; "" if the network has layers to show."""
    if structure is None or structure.layers:
        return ""
    return (
        f"{structure.model} has no layer of the type Conv2d or ConvTranspose2d, so there are no "
        "filters to show. The loss and the metrics are shown below."
    )


def _fields(state: RunState) -> list[dict[str, Any]]:
    structure, snapshot = state.structure, state.snapshot
    if structure is None:
        return []
    fields = [
        _field("Layers · filters", f"{len(structure.layers)} · {format_count(state.n_filters)}"),
        _field("Parameters", format_count(structure.parameter_count)),
    ]
    fields = [{**field, "minor": True} for field in fields]
    return fields if snapshot is None else fields + _snapshot_fields(snapshot)


def _snapshot_fields(snapshot: Snapshot) -> list[dict[str, Any]]:
    epochs = f" / {snapshot.max_epochs}" if snapshot.max_epochs else ""
    batches = f" / {format_count(snapshot.batches_per_epoch)}" if snapshot.batches_per_epoch else ""
    batch = f"{format_count(snapshot.batch_index + 1)}{batches}"
    fields = [
        _field("Epoch", f"{snapshot.epoch + 1}{epochs}"),
        _field("Batch", batch, f"batch {snapshot.step} of the run"),
        _field("Loss", format_number(snapshot.loss), warn=snapshot.nonfinite_gradients),
    ]
    fields += [
        _field(name.replace("_", " "), format_number(value), name)
        for name, value in sorted(snapshot.metrics.items(), key=_metric_priority)
        if name not in LOSS_NAMES
    ][:MAX_METRICS]
    rates = snapshot.learning_rates
    if rates:
        last = f" … {format_number(rates[-1])}" if len(set(rates)) > 1 else ""
        fields.append(_field("Learning rate", format_number(rates[0]) + last))
    fields.append(_field("Throughput", f"{format_number(snapshot.batches_per_second)} batch/s"))
    return fields


def _field(label: str, value: str, title: str = "", *, warn: bool = False) -> dict[str, Any]:
    if warn:
        title = "The gradients of this batch contain inf or NaN."
    return {"label": label, "value": value, "title": title, "warn": warn}


def _metric_priority(metric: tuple[str, float]) -> tuple[bool, bool, str]:
    """Sort key: validation metrics first, accuracies before other metrics."""
    name = metric[0].lower()
    return ("val" not in name, "acc" not in name, name)
