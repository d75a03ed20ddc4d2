"""The verdicts on the network of a run, from the messages that it publishes."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.verdict_window import VerdictWindow
from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.protocol.filter_columns import source_columns
from revacnn_lightning.protocol.messages import Snapshot, Structure

__all__ = ["NetworkVerdicts"]

STATISTICS = ("activation", "gradient", "update_ratio")


class NetworkVerdicts:
    """Tracks what verdicts on the network of a run are made of.

    Attributes:
        revision: incremented with every batch and every other structure.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._window = VerdictWindow()
        self._version: int | None = None

    def update_structure(self, before: Structure | None, structure: Structure) -> None:
        """Adopt the network after an edit; ``before`` is the one before, of the same run."""
        widths = [len(layer.filter_ids) for layer in structure.layers]
        self._window.update_structure(
            [layer.name for layer in structure.layers],
            np.cumsum([0, *widths]),
            source_columns(before, structure),
        )
        self._version = structure.version
        self.revision += 1

    def add(self, snapshot: Snapshot) -> None:
        """Add a batch, unless it was trained with another network."""
        if snapshot.version != self._version:
            return
        rows = dict(zip(snapshot.statistics, snapshot.values, strict=False))
        kept = {name: rows[name].copy() for name in STATISTICS if name in rows}
        intervals = dict(zip(snapshot.statistics, snapshot.sampling_intervals, strict=False))
        is_sampled = intervals.get("update_ratio", 1) > 1
        self._window.add(snapshot.step, kept, count=snapshot.batch_count, is_sampled=is_sampled)
        self.revision += 1

    def verdicts(self, dead: np.ndarray | None = None) -> list[Verdict]:
        """Return the verdicts, those first that are worth most to act on.

        Args:
            dead: which filters are dead, bool (filters,); None while this is unknown.
        """
        return [] if self._version is None else self._window.verdicts(dead)
