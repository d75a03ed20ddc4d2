"""Keeps the history of a run in the training process."""

from __future__ import annotations

import time
from collections.abc import Mapping

from revacnn_lightning.history.network_statistics import NetworkAndDeadFilterTracker
from revacnn_lightning.history.run_history import RunHistory
from revacnn_lightning.history.sample_schedule import SampleSchedule
from revacnn_lightning.protocol.messages import History, HistoryEdit, Snapshot, Structure

__all__ = ["HistoryRecorder"]


class HistoryRecorder:
    """Keeps a sample of the batches since the first one.

    Args:
        history: what is known of earlier batches, as after a resume; None if nothing is.
    """

    def __init__(self, history: RunHistory | None = None) -> None:
        self._history = RunHistory() if history is None else history
        self._schedule = SampleSchedule()
        self._network = NetworkAndDeadFilterTracker()

    # ------------------------------------------------------------------ a batch

    def is_due(self, step: int) -> bool:
        """Return whether to record this batch even if no viewer is attached."""
        return self._schedule.is_due(step)

    def begin_sample(self, step: int, overhead: float) -> None:
        """Note that this batch is recorded; see `SampleSchedule.advance`."""
        self._schedule.advance(step, overhead)

    def add(self, snapshot: Snapshot) -> None:
        """Add a batch that was due."""
        network = self._network
        if not network.has_structure_of(snapshot):
            return  # of the network before an edit
        self._history.add_scalars(snapshot)
        if network.add_activation(snapshot):
            values = dict(zip(snapshot.statistics, snapshot.values, strict=True))
            dead = network.dead_mask()
            self._history.add_layers(snapshot.step, values, dead, network.offsets)

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add what the module has logged until this batch."""
        self._history.add_metrics(step, metrics)

    # ------------------------------------------------------------------ the network

    def update_structure(self, structure: Structure) -> None:
        """Adopt the network as it was published."""
        if self._network.update_structure(structure):
            self._history.set_layers(self._network.layer_names)

    def add_edit(self, step: int, title: str, version: int) -> None:
        """Add an edit that was applied before this batch."""
        self._history.add_edit(HistoryEdit(step, title, version, time.time()))

    # ------------------------------------------------------------------ messages

    def to_message(self, request_id: str = "") -> History:
        """Return the history as the reply to a request."""
        return self._history.to_message(request_id)
