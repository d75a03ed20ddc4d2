"""The header of the page: the run, its status and its newest figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from revacnn_lightning.diagnostics.verdicts import NOTHING_WATCHED
from revacnn_lightning.protocol.access_messages import Access
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import Snapshot, Status, Structure

from ..rendering.formatting import format_count, format_date_time, format_number, format_time_of_day
from ..runs.metric_names import TRAINING_LOSSES, metric_sort_key
from ..runs.run_health import RunStatus
from ..runs.run_state import RunState
from ..tab.watched_layers import no_layers_reason
from .html_panel import HtmlDataPanel

__all__ = ["Header"]

MAX_METRICS = 2
ROLES = {
    "owner": "The key of this page edits and controls the run, and hands out other keys",
    "operator": "The key of this page edits and controls the run",
    "observer": "The key of this page only observes the run",
}
MOVING_KINDS = ("training", "validating", "connecting")


class Header(HtmlDataPanel):
    """The name, the status and the newest figures of the run, at the top of the page."""

    part = "header"

    def content(self) -> dict[str, Any]:
        selection = self.tab.run_selection
        status = selection.follower.run_status()
        state, structure = self.tab.state, self.tab.structure
        if state is None:
            run = "none"
        else:
            run = "connecting" if structure is None else "attached"
        current, next_run = selection.follower.run_id, selection.next_run()
        name = _name(selection.follower.connection, structure)
        return {
            "run": run,
            "kind": status.kind,
            "status": status.text,
            "unreachable": status.kind == "unreachable",
            "can_steer": not self.tab.lasting_refusal(),
            "steering_refusal": self.tab.steering_refusal(),
            "request_refusal": status.refusal,
            "access": _access(selection.follower.access),
            "motionless": status.kind not in MOVING_KINDS,
            "end_notice": _end_notice(status, name or "This run"),
            **_alerts(state, self.tab.dismissed_alerts),
            "watch_refusal": no_layers_reason(self.tab),
            "network_notice": status.text if run == "connecting" else _missing_layers(structure),
            "problem": selection.problem,
            "model": structure.model if structure is not None else "",
            "name": name,
            "fields": _fields(state) if state is not None else [],
            "current_run": current,
            "runs": [
                {"id": one.run, "label": label, "current": one.run == current}
                for one, label in _labels(selection.available_runs())
            ],
            "next_run": None if next_run is None else {"id": next_run.run, "label": next_run.title},
        }


def _access(access: Access | None) -> dict[str, str]:
    """Return the key of this page, in words: a label unless it is the owner's, and what it may do.

    Nearly all pages have the owner's key, so it needs no place of its own.
    """
    if access is None:
        return {"label": "", "note": ""}
    until = "" if access.expires is None else f" until {format_date_time(access.expires)}"
    name = "" if access.key == access.role else f" · {access.key}"
    label = "" if access.role == "owner" else access.role.capitalize() + name
    return {"label": label, "note": f"{ROLES[access.role]}{until}."}


def _labels(runs: Sequence[Connection]) -> list[tuple[Connection, str]]:
    """Return each run with a label: its title, and its start time if others have the same."""
    counts = Counter(one.title for one in runs)
    return [
        (one, f"{one.title} · {format_time_of_day(one.start_time)}")
        if counts[one.title] > 1
        else (one, one.title)
        for one in runs
    ]


def _end_notice(status: RunStatus, name: str) -> str:
    """Return the notice over the network view of a run that sends nothing; "" if it may."""
    if status.kind == "recording":
        return f"{name}: {status.text}. Nothing here can be edited or controlled."
    if status.has_ended:
        return f"{name} {status.text}. Showing the last recorded state."
    if status.kind == "unreachable":
        return f"{name} is {status.text}. Showing the last received state."
    if status.kind == "refused":
        return f"{name} sends nothing: {status.text}. Showing the last received state."
    return ""


def _alerts(state: RunState | None, dismissed: float) -> dict[str, str]:
    """Return the newest alert that was not dismissed, and all of them."""
    alerts = [] if state is None or state.status is None else state.status.alerts
    new = [alert.text for alert in alerts if alert.time > dismissed]
    return {
        "alert": new[-1] if new else "",
        "alerts": "\n".join(alert.text for alert in alerts) if new else "",
    }


def _name(connection: Connection | None, structure: Structure | None) -> str:
    """Return what the header calls the run: the name it was given, or the class of its model."""
    if structure is None:
        return ""
    return (connection.name if connection is not None else "") or structure.model


def _missing_layers(structure: Structure | None) -> str:
    """Return why the network view is empty; "" if the network has layers to show."""
    if structure is None or structure.layers:
        return ""
    return (
        f"{structure.model}: {NOTHING_WATCHED}, so there are no filters to show. The loss and the "
        "metrics are shown below."
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
    fields += [] if snapshot is None else _snapshot_fields(snapshot)
    return fields + _compilations(state.status)


def _compilations(status: Status | None) -> list[dict[str, Any]]:
    """Return what torch.compile has cost; nothing where it is not used."""
    if status is None or not status.compilations:
        return []
    seconds = format_number(status.compile_seconds)
    title = "functions that torch.compile has compiled in this run, and the time it has taken"
    return [_field("Compiled", f"{status.compilations} × · {seconds} s", title)]


def _snapshot_fields(snapshot: Snapshot) -> list[dict[str, Any]]:
    epochs = f" / {snapshot.max_epochs}" if snapshot.max_epochs else ""
    batches = f" / {format_count(snapshot.batches_per_epoch)}" if snapshot.batches_per_epoch else ""
    batch = f"{format_count(snapshot.batch_index + 1)}{batches}"
    number, about_loss = f"batch {snapshot.step} of the run", ""
    if snapshot.batch_count > 1:
        number += f"; all values are means of the last {snapshot.batch_count} batches"
        about_loss = f"the mean of {snapshot.batch_count} batches"
        about_loss += f", at most {format_number(snapshot.max_loss)}"
    is_nonfinite = snapshot.nonfinite_gradients
    fields = [
        _field("Epoch", f"{snapshot.epoch + 1}{epochs}"),
        _field("Batch", batch, number),
    ]
    is_known = snapshot.loss is not None or is_nonfinite
    if is_known or not snapshot.metrics:  # the steps of a GAN return none
        fields.append(_field("Loss", format_number(snapshot.loss), about_loss, warn=is_nonfinite))
    fields += [
        _field(name.replace("_", " "), format_number(value), name)
        for name, value in sorted(snapshot.metrics.items(), key=lambda one: metric_sort_key(one[0]))
        if name not in TRAINING_LOSSES
    ][:MAX_METRICS]
    rates = snapshot.learning_rates
    if rates:
        last = f" … {format_number(rates[-1])}" if len(set(rates)) > 1 else ""
        fields.append(_field("Learning rate", format_number(rates[0]) + last))
    if snapshot.ranks > 1:
        about = f"all values, and the loss, are means over {snapshot.ranks} processes"
        fields.append(_field("Ranks", str(snapshot.ranks), about))
    fields.append(_field("Throughput", f"{format_number(snapshot.batches_per_second)} batch/s"))
    return fields


def _field(label: str, value: str, title: str = "", *, warn: bool = False) -> dict[str, Any]:
    if warn:
        title = "The gradients of this batch contain inf or NaN."
    return {"label": label, "value": value, "title": title, "warn": warn}
