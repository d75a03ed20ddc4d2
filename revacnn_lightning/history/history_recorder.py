"""Keeps the history of a run in the training process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from revacnn_lightning.diagnostics.dead_filters import DeadFilters
from revacnn_lightning.history.run_history import RunHistory
from revacnn_lightning.history.sample_schedule import SampleSchedule
from revacnn_lightning.protocol.filter_columns import source_columns
from revacnn_lightning.protocol.messages import History, HistoryEdit, Snapshot, Structure

__all__ = ["HistoryRecorder"]


class HistoryRecorder:
    """Keeps a sample of the batches since the first one.

    Args:
        history: what is known of earlier batches, as after a resume; None: nothing.
    """

    def __init__(self, history: RunHistory | None = None) -> None:
        self._history = RunHistory() if history is None else history
        self._schedule = SampleSchedule()
        self._dead = DeadFilters()
        self._structure: Structure | None = None
        self._offsets = np.zeros(1, np.int64)
        self._is_observed = np.zeros(0, bool)  # (filters,)

    # ------------------------------------------------------------------ a batch

    def is_due(self, step: int) -> bool:
        """Return whether to record this batch even if no viewer is attached."""
        return self._schedule.is_due(step)

    def begin_sample(self, step: int, overhead: float) -> None:
        """Note that this batch is recorded; see `SampleSchedule.advance`."""
        self._schedule.advance(step, overhead)

    def add(self, snapshot: Snapshot) -> None:
        """Add a batch that was due."""
        structure, n_filters = self._structure, int(self._offsets[-1])
        is_current = structure is not None and snapshot.version == structure.version
        if not is_current or snapshot.values.shape != (len(snapshot.statistics), n_filters):
            return  # of the network before an edit
        self._history.add_scalars(snapshot)
        values = dict(zip(snapshot.statistics, snapshot.values, strict=True))
        activation = values.get("activation")
        if activation is not None:
            self._dead.add(snapshot.step, activation)
            dead = self._dead.mask() & self._is_observed if self._dead.is_known else None
            self._history.add_layers(snapshot.step, values, dead, self._offsets)

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add what the module has logged until this batch."""
        self._history.add_metrics(step, metrics)

    # ------------------------------------------------------------------ the network

    def update_structure(self, structure: Structure) -> None:
        """Adopt the network as it was published."""
        known = self._structure
        self._structure = structure
        if known is not None and (known.run, known.version) == (structure.run, structure.version):
            return
        self._history.set_layers([layer.name for layer in structure.layers])
        self._dead.remap(source_columns(known, structure))
        widths = np.array([len(layer.filter_ids) for layer in structure.layers], np.int64)
        self._offsets = np.cumsum([0, *widths])
        observed = np.array([layer.observed for layer in structure.layers], bool)
        self._is_observed = np.repeat(observed, widths)

    def add_edit(self, step: int, title: str, version: int) -> None:
        """Add an edit that was applied before this batch."""
        self._history.add_edit(HistoryEdit(step, title, version))

    # ------------------------------------------------------------------ messages

    def to_message(self, request_id: str = "") -> History:
        """Return the history as the reply to a request."""
        return self._history.to_message(request_id)
