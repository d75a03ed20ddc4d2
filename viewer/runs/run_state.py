"""What the viewer knows about one run: its network, its newest values and their histories."""

from __future__ import annotations

import logging
import time

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.diagnostics.dead_filters import DeadFilterTracker, find_dead_filters
from revacnn_lightning.history.network_verdicts import FrozenEvidence, NetworkVerdicts
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.filter_columns import find_previous_columns
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    History,
    Message,
    Planned,
    Refused,
    Snapshot,
    Status,
    Structure,
)

from .edit_effects import EditEffects
from .inherited_edges import inherit_edges
from .request_log import RequestLog
from .resumed_run import describe_lost_progress, mask_ids_of_edited_layers
from .run_histories import FILTER_STATISTICS, RunHistoryWithFilters

__all__ = ["RunState"]

log = logging.getLogger(__name__)

MAX_ALERTS = 50  # a status holds only the last ones
NEW_SECONDS = 8.0  # how long an added filter is marked as new


class RunState:
    """State of one run, shared by all tabs of the server.

    Tabs compare the revisions with those of their last update to detect changes.

    Args:
        connection: the connection of the run.
        earlier: the state of the run that this one resumes from a checkpoint; None if unknown.

    Attributes:
        resumes: id of the run whose histories this one continues; "" for none.
        resume_note: what the run has lost of that one, in words.
        structure, status, snapshot: the newest of each message, or None.
        values_revision: incremented with every accepted snapshot.
        structure_revision: incremented with every change of the network.
        history_revision: incremented with every history that the run has sent.
        offsets: index of each layer's first filter in flat arrays, int64 (layers + 1,).
        latest: newest value of each published statistic, each (filters,).
        snapshot_time: Unix time at which the newest snapshot was received.
        histories: of all values in the snapshots.
        requests: requests sent by this server, and the edits applied.
        network_verdicts: what verdicts follow from.
        alerts: of the run, as far as this viewer has received them, oldest first.
        edit_effects: the loss and the metrics before and after each edit.
    """

    def __init__(self, connection: Connection, earlier: RunState | None = None) -> None:
        self.connection = connection
        self.resumes = ""
        self.resume_note = ""
        self._earlier = earlier
        self._missed_after: int | None = None  # the last batch before an interruption
        self.structure: Structure | None = None
        self.status: Status | None = None
        self.snapshot: Snapshot | None = None
        self.values_revision = self.structure_revision = self.history_revision = 0
        self.snapshot_time = 0.0
        self.offsets = np.zeros(1, np.int64)
        self.latest: dict[str, np.ndarray] = {}
        self.histories = RunHistoryWithFilters()
        self.requests = RequestLog(connection.run)
        self.alerts: list[Alert] = []
        self.edit_effects = EditEffects()
        self._n_statuses = 0
        self._is_observed = np.zeros(0, bool)  # (filters,)
        self._dead_filters = DeadFilterTracker()
        self.network_verdicts = NetworkVerdicts()
        self._dead_mask: np.ndarray | None = None  # computed on demand
        self._added_at = np.zeros(0)  # monotonic time per filter; 0: present when we attached
        self._last_added_at = 0.0

    def receive(self, message: Message) -> None:
        """Update the state from one message of the training."""
        if isinstance(message, Snapshot):
            self._receive_snapshot(message)
        elif isinstance(message, Structure):
            self._receive_structure(message)
        elif isinstance(message, Status):
            self.status = message
            self._n_statuses += 1
            new = [alert for alert in message.alerts if alert not in self.alerts]
            self.alerts = [*self.alerts, *new][-MAX_ALERTS:]
        elif isinstance(message, LayerEvidence):
            self.network_verdicts.add_evidence(message)
        elif isinstance(message, History):
            self._receive_history(message)
        elif isinstance(message, RequestOutcome):
            self.requests.add_outcomes([message])
        elif isinstance(message, (Planned, Applied, Done, Refused)):
            self.requests.receive(message, self.structure)

    # ---------------------------------------------------------------- queries

    @property
    def activity_revision(self) -> int:
        """Incremented with every status, history, request and reply."""
        return self._n_statuses + self.requests.revision + self.history_revision

    @property
    def n_filters(self) -> int:
        """Number of filters in all layers."""
        return int(self.offsets[-1])

    def layer_index(self, name: str) -> int | None:
        """Return the index of a layer, or None if no layer has that name."""
        if self.structure is None:
            return None
        names = [layer.name for layer in self.structure.layers]
        return names.index(name) if name in names else None

    def layer_ids(self, layer: int) -> list[int]:
        """Return the ids of a layer's filters."""
        return [] if self.structure is None else self.structure.layers[layer].filter_ids

    def layer_values(self, statistic: str, layer: int) -> np.ndarray:
        """Return the newest values of a layer's filters; empty before the first snapshot."""
        values = self.latest.get(statistic)
        if values is None:
            return np.zeros(0, np.float32)
        return values[self.offsets[layer] : self.offsets[layer + 1]]

    def filter_history(self, statistic: str, layer: int, index: int) -> np.ndarray:
        """Return the history of one filter, one value per row of ``histories.filters``."""
        column = FILTER_STATISTICS.index(statistic) * self.n_filters
        return self.histories.filters.rows[:, column + int(self.offsets[layer]) + index]

    def dead_mask(self) -> np.ndarray:
        """Return which filters are dead, as `DeadFilterTracker` defines it, bool (filters,)."""
        if self._dead_mask is None:
            self._dead_mask = self._dead_filters.mask() & self._is_observed
        return self._dead_mask

    def copy_verdict_evidence(self) -> FrozenEvidence:
        """Return an immutable copy of what verdicts follow from at present."""
        return self.network_verdicts.frozen(self.dead_mask() if self.knows_dead_filters else None)

    def dead_mask_at(self, row: int) -> np.ndarray:
        """Return which filters were dead at a row of ``histories.filters``, bool (filters,)."""
        history = self.histories.filters
        first = FILTER_STATISTICS.index("activation") * self.n_filters
        activations = history.rows[: row + 1, first : first + self.n_filters]
        return find_dead_filters(history.steps[: row + 1], activations) & self._is_observed

    @property
    def knows_dead_filters(self) -> bool:
        """Whether enough batches were recorded to know which filters are dead."""
        return self._dead_filters.is_known

    def new_filter_mask(self) -> np.ndarray:
        """Return which filters were added within `NEW_SECONDS`, bool (filters,)."""
        now = time.monotonic()
        if not self._last_added_at or now - self._last_added_at >= NEW_SECONDS:  # the usual case
            return np.zeros(len(self._added_at), bool)
        return (self._added_at > 0) & (now - self._added_at < NEW_SECONDS)

    def sampling_interval(self, statistic: str) -> int:
        """Return the number of batches between two measurements of a statistic."""
        if self.snapshot is None:
            return 1
        known = dict(zip(self.snapshot.statistics, self.snapshot.sampling_intervals, strict=False))
        return known.get(statistic, 1)

    # ---------------------------------------------------------------- structure

    def _receive_structure(self, structure: Structure) -> None:
        known = self.structure
        if known is not None and structure.version <= known.version:
            self._complete_structure(known, structure)
            return
        structure = inherit_edges(known, structure)
        source = find_previous_columns(known, structure)
        self.network_verdicts.update_structure(known, structure)
        self.structure = structure
        widths = [len(layer.filter_ids) for layer in structure.layers]
        self.offsets = np.cumsum([0, *widths])
        observed = np.array([layer.observed for layer in structure.layers], bool)
        self._is_observed = np.repeat(observed, np.array(widths, np.int64))
        self._remap_filters(source, is_first=known is None)
        self.histories.set_layers([layer.name for layer in structure.layers])
        if known is not None:
            times = [one.time for one in (self.status, self.snapshot) if one is not None]
            self.requests.mark_edit(structure, max(times, default=0.0))
            self.edit_effects.begin_measuring(structure.version)
        self.structure_revision += 1

    def _complete_structure(self, known: Structure, structure: Structure) -> None:
        """Add what only a trace finds, such as edges; it arrives a batch after the structure."""
        traced = replace(inherit_edges(known, structure), step=known.step)
        if structure.version == known.version and traced != known:
            self.structure = traced
            self.structure_revision += 1

    def _remap_filters(self, source: np.ndarray, *, is_first: bool) -> None:
        """Move the per-filter state to the filters' new indices; see `find_previous_columns`."""
        kept = source >= 0
        added_at = np.full(len(source), 0.0 if is_first else time.monotonic())
        added_at[kept] = self._added_at[source[kept]]
        self._added_at = added_at
        self._dead_filters.reorder_filters(source)
        self._dead_mask, self._last_added_at = None, float(added_at.max(initial=0.0))
        for name, values in self.latest.items():
            remapped = np.zeros(len(source), np.float32)
            remapped[kept] = values[source[kept]]
            self.latest[name] = remapped
        if is_first and self._earlier is not None:
            self._continue_histories(self._earlier)
        elif is_first:
            self.histories.start_filter_history(len(source))
        else:
            self.histories.reorder_filter_history(source)

    # ---------------------------------------------------------------- the run that is resumed

    def _continue_histories(self, earlier: RunState) -> None:
        """Continue the histories of the run that this one resumes, up to its checkpoint."""
        structure, first_step = self.structure, self.connection.first_step
        self._earlier, marks = None, earlier.requests.edit_marks
        if structure is None or earlier.structure is None:
            self.histories.start_filter_history(self.n_filters)
            return
        last_step = None if earlier.snapshot is None else earlier.snapshot.step
        self.resume_note = describe_lost_progress(last_step, marks, first_step)
        before = mask_ids_of_edited_layers(earlier.structure, structure)
        source = find_previous_columns(before, structure)
        self.histories.continue_from(earlier.histories, first_step, source)
        self.resumes = earlier.connection.run

    # ---------------------------------------------------------------- before the viewer attached

    def note_interruption(self) -> None:
        """Note that the batches from now on were missed; the next history fills the gap."""
        if self.snapshot is not None and self._missed_after is None:
            self._missed_after = self.snapshot.step

    def _receive_history(self, message: History) -> None:
        """Insert what the run has kept since its first batch where nothing was received."""
        after, self._missed_after = self._missed_after, None
        try:
            self.histories.prepend(message)
            if after is not None:
                self.histories.fill_gap(message, after)
        except ValueError as error:
            log.warning("Ignored a malformed history of run %s: %s", self.connection.run, error)
            return
        self.requests.add_earlier_marks(message.edits)
        self.requests.add_outcomes(message.requests)
        self.history_revision += 1

    # ---------------------------------------------------------------- snapshots

    def _receive_snapshot(self, snapshot: Snapshot) -> None:
        structure = self.structure
        if structure is None or snapshot.version != structure.version:
            return  # of a network that is unknown or outdated
        if snapshot.values.shape != (len(snapshot.statistics), self.n_filters):
            return
        self.snapshot, self.snapshot_time = snapshot, time.time()
        self.latest = self._latest_values(snapshot)
        self.histories.add_scalars(snapshot)
        self.histories.add_metrics(snapshot.step, snapshot.metrics)
        self.edit_effects.add(snapshot)
        self.network_verdicts.add(snapshot)
        if all(len(self.latest.get(name, ())) for name in FILTER_STATISTICS):
            self._dead_filters.add(snapshot.step, self.latest["activation"])
            self._dead_mask = None
            dead = self.dead_mask() if self.knows_dead_filters else None
            self.histories.add_filter_values(snapshot.step, self.latest, dead, self.offsets)
        self.values_revision += 1

    def _latest_values(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Return the newest value of each statistic; where not measured, the previous one."""
        latest = dict(zip(snapshot.statistics, snapshot.values, strict=True))
        for name, row in latest.items():
            previous = self.latest.get(name)
            if self.sampling_interval(name) > 1 and previous is not None:
                latest[name] = np.where(np.isnan(row), previous, row)
        return latest
