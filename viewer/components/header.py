"""The page's head: which run, what it is doing, its newest figures."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import Structure

from ..rendering.formatting import format_count, format_number, format_time_of_day
from ..runs.run_follower import RunHealth
from ..runs.run_state import RunState
from .html_panel import HtmlPanel

__all__ = ["Header"]

SHOWN_METRICS = 2
# Logged by many modules, and shown as the loss already.
LOSS_NAMES = frozenset({"loss", "train_loss", "train/loss", "train_loss_step", "loss_step"})


class Header(HtmlPanel):
    part = "header"

    def content(self) -> dict[str, Any]:
        choice = self.tab.choice
        health = choice.follower.health()
        state, structure = self.tab.state, self.tab.structure
        if state is None:
            run = "none"
        else:
            run = "connecting" if structure is None else "here"
        following = choice.next_run()
        return {
            "run": run,
            "kind": health.kind,
            "state": health.text,
            "ended": health.ended,
            "still": health.kind not in ("training", "validating", "connecting"),
            "ended_text": _epitaph(health, structure),
            "problem": choice.problem,
            "model": structure.model if structure is not None else "",
            "fields": _fields(state) if state is not None else [],
            "current": choice.follower.run_id,
            "runs": [
                {**_named(one), "current": one.run == choice.follower.run_id}
                for one in choice.known()
            ],
            "next": None if following is None else _named(following),
        }


def _named(connection: Connection) -> dict[str, Any]:
    """A run as a person tells it from others: its model, and when it began."""
    began = format_time_of_day(connection.start_time)[:5]
    return {"id": connection.run, "label": f"{connection.model or connection.run} · {began}"}


def _epitaph(health: RunHealth, structure: Structure | None) -> str:
    """What is said over the last picture of a run that has ended."""
    if not health.ended:
        return ""
    name = "This run" if structure is None else structure.model
    return f"{name} {health.text}. What it showed last stays here."


def _fields(state: RunState) -> list[dict[str, Any]]:
    structure, snapshot = state.structure, state.snapshot
    if structure is None:
        return []
    fields = [
        _field("Layers · filters", f"{len(structure.layers)} · {format_count(state.n_filters)}"),
        _field("Parameters", format_count(structure.parameter_count)),
    ]
    if snapshot is None:
        return fields
    of_epochs = f" / {snapshot.max_epochs}" if snapshot.max_epochs else ""
    of_batches = (
        f" / {format_count(snapshot.batches_per_epoch)}" if snapshot.batches_per_epoch else ""
    )
    fields += [
        _field("Epoch", f"{snapshot.epoch + 1}{of_epochs}"),
        _field(
            "Batch",
            f"{format_count(snapshot.batch_index + 1)}{of_batches}",
            f"batch {snapshot.step} of the run",
        ),
        _field("Loss", format_number(snapshot.loss), warn=snapshot.nonfinite_gradients),
    ]
    fields += [
        _field(name.replace("_", " "), format_number(value), name)
        for name, value in sorted(snapshot.metrics.items(), key=_by_interest)
        if name not in LOSS_NAMES
    ][:SHOWN_METRICS]
    rates = snapshot.learning_rates
    if rates:
        spread = f" … {format_number(rates[-1])}" if len(set(rates)) > 1 else ""
        fields.append(_field("Learning rate", format_number(rates[0]) + spread))
    fields.append(_field("Throughput", f"{format_number(snapshot.batches_per_second)} batch/s"))
    return fields


def _field(label: str, value: str, title: str = "", *, warn: bool = False) -> dict[str, Any]:
    if warn:
        title = "inf or NaN among the gradients of this batch"
    return {"label": label, "value": value, "title": title, "warn": warn}


def _by_interest(metric: tuple[str, float]) -> tuple[bool, bool, str]:
    """Validation first, accuracies before the rest."""
    name = metric[0].lower()
    return ("val" not in name, "acc" not in name, name)
