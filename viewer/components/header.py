"""The page's head: which run, what it is doing, its newest figures."""

from __future__ import annotations

from typing import Any

from ..run_state import RunState
from ..wording import compact, count
from .panel import HtmlPart

__all__ = ["Header"]

SHOWN_METRICS = 2
# Logged by many modules, and shown as the loss already.
LOSS_NAMES = frozenset({"loss", "train_loss", "train/loss", "train_loss_step", "loss_step"})


class Header(HtmlPart):
    part = "header"

    def content(self) -> dict[str, Any]:
        hub = self.tab.hub
        health = hub.health()
        state, structure = self.tab.state, self.tab.structure
        if state is None:
            run = "none"
        else:
            run = "connecting" if structure is None else "here"
        current = "" if state is None else state.connection.run
        return {
            "run": run,
            "kind": health.kind,
            "state": health.text,
            "ended": health.ended,
            "still": health.kind not in ("training", "validating", "connecting"),
            "problem": hub.problem,
            "model": structure.model if structure is not None else "",
            "fields": _fields(state) if state is not None else [],
            "runs": [
                {
                    "id": one.run,
                    "label": f"{one.model or one.run} · {one.pid}",
                    "current": one.run == current,
                }
                for one in hub.runs
            ],
        }


def _fields(state: RunState) -> list[dict[str, Any]]:
    structure, snapshot = state.structure, state.snapshot
    if structure is None:
        return []
    fields = [
        _field("Layers · filters", f"{len(structure.layers)} · {count(state.n_filters)}"),
        _field("Parameters", count(structure.parameters)),
    ]
    if snapshot is None:
        return fields
    of_epochs = f" / {snapshot.epochs}" if snapshot.epochs else ""
    of_batches = f" / {count(snapshot.batches)}" if snapshot.batches else ""
    fields += [
        _field("Epoch", f"{snapshot.epoch + 1}{of_epochs}"),
        _field(
            "Batch", f"{count(snapshot.batch + 1)}{of_batches}", f"batch {snapshot.step} of the run"
        ),
        _field("Loss", compact(snapshot.loss), warn=snapshot.nonfinite),
    ]
    fields += [
        _field(name.replace("_", " "), compact(value), name)
        for name, value in sorted(snapshot.metrics.items(), key=_by_interest)
        if name not in LOSS_NAMES
    ][:SHOWN_METRICS]
    rates = snapshot.learning_rates
    if rates:
        spread = f" … {compact(rates[-1])}" if len(set(rates)) > 1 else ""
        fields.append(_field("Learning rate", compact(rates[0]) + spread))
    fields.append(_field("Throughput", f"{compact(snapshot.batches_per_second)} batch/s"))
    return fields


def _field(label: str, value: str, title: str = "", *, warn: bool = False) -> dict[str, Any]:
    if warn:
        title = "inf or NaN among the gradients of this batch"
    return {"label": label, "value": value, "title": title, "warn": warn}


def _by_interest(metric: tuple[str, float]) -> tuple[bool, bool, str]:
    """Validation first, accuracies before the rest."""
    name = metric[0].lower()
    return ("val" not in name, "acc" not in name, name)
