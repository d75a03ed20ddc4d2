"""What the viewer knows of one run: its network, its newest numbers, bounded histories.

One `RunState` per run, shared by all tabs of the server. Tabs compare `numbers`, `shape` and
`talk`, which are counted up with every change, to what they have drawn.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    Message,
    Planned,
    PlanSummary,
    Refused,
    Reply,
    Snapshot,
    Status,
    Structure,
)

from .filter_mapping import source_columns, still_connected
from .history import History, means_of_runs

__all__ = ["FILTER_STATISTICS", "LAYER_STATISTICS", "EditMark", "RequestRecord", "RunState"]

SCALAR_ROWS = 2048  # points of a chart over the whole run: more than its pixels
LAYER_ROWS = 512
MAX_METRICS = 64
FILTER_BYTES = 48 * 2**20  # of the history of every filter
FILTER_ROWS = 600
FILTER_STATISTICS = ("gradient", "activation")
# Of each layer the mean over its filters; of "dead" their share.
LAYER_STATISTICS = ("gradient", "activation", "update_ratio", "dead")
# A filter counts as dead when its activation was exactly zero in this many snapshots in a row.
DEAD_AFTER = 20
NEW_SECONDS = 8.0  # a new filter is marked as new for so long
MAX_RECORDS = 64
MAX_PLANS = 256
MAX_MARKS = 256


class EditMark(Struct, frozen=True):
    """The network changed here: drawn on the time axes."""

    step: int
    version: int
    title: str = ""  # what was done, where this viewer has heard of it


class RequestRecord(Struct):
    """One request that was sent, and what became of it."""

    id: str
    title: str
    sent: float  # Unix time
    state: str = "sent"  # sent, applied, done, refused
    step: int = 0
    version: int = 0  # of the structure it led to
    layers: list[str] = []  # whose widths it changed
    text: str = ""  # the new widths, or the reason of the refusal
    plan: PlanSummary | None = None  # of an applied edit
    output_change: float | None = None  # measured on the batch before which it was applied


class RunState:
    """Everything known of one run.

    Attributes:
        numbers: counted up with every snapshot taken over.
        shape: counted up with every change of the network.
        talk: counted up with every reply, status and request.
        offsets: where each layer's filters begin in the flat arrays, (layers + 1,).
        latest: newest values of each published statistic, each (filters,).
        read: when the newest snapshot was taken over, Unix time.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.structure: Structure | None = None
        self.status: Status | None = None
        self.snapshot: Snapshot | None = None
        self.numbers = self.shape = self.talk = 0
        self.read = 0.0
        self.offsets = np.zeros(1, np.int64)
        self.latest: dict[str, np.ndarray] = {}
        self.zero_streak = np.zeros(0, np.int32)
        self._observed = np.zeros(0, bool)
        self._dead: np.ndarray | None = None  # as it is now, once somebody has asked
        self.born = np.zeros(0)  # monotonic time each filter appeared; 0: from the start
        self._youngest = 0.0  # of these
        self.scalars = History(2, SCALAR_ROWS)  # loss, batches per second
        self.learning_rates = History(1, SCALAR_ROWS)
        self.metrics: dict[str, History] = {}
        self._metric_values: dict[str, float] = {}
        self.layers = {name: History(0, LAYER_ROWS) for name in LAYER_STATISTICS}
        self.filters = History(0, 4)  # gradient of every filter, then activation of every filter
        self.records: OrderedDict[str, RequestRecord] = OrderedDict()
        self.plans: OrderedDict[str, Planned | Refused] = OrderedDict()
        self.marks: deque[EditMark] = deque(maxlen=MAX_MARKS)

    # What arrives

    def take(self, message: Message) -> None:
        """Take over one message of the training."""
        if isinstance(message, Snapshot):
            self._take_snapshot(message)
        elif isinstance(message, Structure):
            self._take_structure(message)
        elif isinstance(message, Status):
            self.status = message
            self.talk += 1
        elif isinstance(message, (Planned, Applied, Done, Refused)):
            self._take_reply(message)

    def sent(self, request_id: str, title: str) -> None:
        """Remember a request that was sent, so that its reply can be told of."""
        self.records[request_id] = RequestRecord(request_id, title, time.time())
        while len(self.records) > MAX_RECORDS:
            self.records.popitem(last=False)
        self.talk += 1

    # What is asked

    @property
    def n_filters(self) -> int:
        return int(self.offsets[-1])

    def layer_index(self, name: str) -> int | None:
        """Position of a layer, None if there is none of that name."""
        if self.structure is None:
            return None
        names = [layer.name for layer in self.structure.layers]
        return names.index(name) if name in names else None

    def layer_ids(self, layer: int) -> list[int]:
        """Ids of a layer's filters."""
        return [] if self.structure is None else self.structure.layers[layer].filter_ids

    def layer_values(self, statistic: str, layer: int) -> np.ndarray:
        """Newest values of one layer's filters; empty before the first snapshot."""
        values = self.latest.get(statistic)
        if values is None:
            return np.zeros(0, np.float32)
        return values[self.offsets[layer] : self.offsets[layer + 1]]

    def filter_history(self, statistic: str, layer: int, index: int) -> np.ndarray:
        """History of one filter, one value per row of `filters`."""
        column = FILTER_STATISTICS.index(statistic) * self.n_filters
        return self.filters.rows[:, column + int(self.offsets[layer]) + index]

    def dead(self) -> np.ndarray:
        """Which filters have been silent for so long that they count as dead, bool (filters,)."""
        if self._dead is None:
            self._dead = (self.zero_streak >= DEAD_AFTER) & self._observed
        return self._dead

    def new(self) -> np.ndarray:
        """Which filters were added just now, bool (filters,)."""
        now = time.monotonic()
        if not self._youngest or now - self._youngest >= NEW_SECONDS:  # nearly always
            return np.zeros(len(self.born), bool)
        return (self.born > 0) & (now - self.born < NEW_SECONDS)

    # Inside

    def _take_structure(self, structure: Structure) -> None:
        known = self.structure
        if known is not None and structure.version <= known.version:
            self._complete(known, structure)
            return
        structure = still_connected(known, structure)
        source = source_columns(known, structure)
        self.structure = structure
        widths = [len(layer.filter_ids) for layer in structure.layers]
        self.offsets = np.cumsum([0, *widths])
        self._observed = np.repeat([layer.observed for layer in structure.layers], widths)
        self._follow(source, first=known is None)
        self._follow_layers(known, structure)
        if known is not None:
            self._mark(structure)
            self._tell_widths(structure)
        self.shape += 1

    def _complete(self, known: Structure, structure: Structure) -> None:
        """What only a trace tells, who feeds whom above all, follows a structure by a batch."""
        told = replace(still_connected(known, structure), step=known.step)
        if structure.version == known.version and told != known:
            self.structure = told
            self.shape += 1

    def _mark(self, structure: Structure) -> None:
        titles = {r.version: r.title for r in self.records.values() if r.state == "applied"}
        title = titles.get(structure.version, "")
        self.marks.append(EditMark(structure.step, structure.version, title))

    def _name_mark(self, record: RequestRecord) -> None:
        """The reply has come after the structure that it led to."""
        for i, mark in enumerate(self.marks):
            if mark.version == record.version:
                self.marks[i] = EditMark(mark.step, mark.version, record.title)

    def _tell_widths(self, structure: Structure) -> None:
        """Complete the records of applied requests with the widths they led to."""
        widths = {layer.name: len(layer.filter_ids) for layer in structure.layers}
        for record in self.records.values():
            if (
                record.state == "applied"
                and not record.text
                and record.version <= structure.version
            ):
                now = [
                    f"{name}: {widths[name]} filters" for name in record.layers if name in widths
                ]
                record.text = ", ".join(now)
                self.talk += 1

    def _follow(self, source: np.ndarray, *, first: bool) -> None:
        """Carry what is known of each filter over to its new place."""
        kept = source >= 0
        streak = np.zeros(len(source), np.int32)
        born = np.full(len(source), 0.0 if first else time.monotonic())
        streak[kept], born[kept] = self.zero_streak[source[kept]], self.born[source[kept]]
        self.zero_streak, self.born = streak, born
        self._dead, self._youngest = None, float(born.max(initial=0.0))
        for name, values in self.latest.items():
            moved = np.zeros(len(source), np.float32)
            moved[kept] = values[source[kept]]
            self.latest[name] = moved
        n_old, n = self.filters.width // 2, len(source)
        if first:
            rows = FILTER_BYTES // max(1, 4 * 2 * n)
            self.filters = History(2 * n, min(FILTER_ROWS, rows))
        else:
            self.filters.select_columns(
                np.concatenate([source, np.where(kept, source + n_old, -1)])
            )

    def _follow_layers(self, known: Structure | None, structure: Structure) -> None:
        names = [] if known is None else [layer.name for layer in known.layers]
        if names == [layer.name for layer in structure.layers]:
            return
        at = {name: i for i, name in enumerate(names)}
        source = np.array([at.get(layer.name, -1) for layer in structure.layers], np.int64)
        for series in self.layers.values():
            series.select_columns(source)

    def _take_snapshot(self, snapshot: Snapshot) -> None:
        structure = self.structure
        if structure is None or snapshot.version != structure.version:
            return  # of a network that is not known yet, or no longer there
        values = snapshot.values
        if values.shape != (len(snapshot.statistics), self.n_filters):
            return
        self.snapshot, self.read = snapshot, time.time()
        self.latest = self._measured(snapshot)
        step = snapshot.step
        loss = math.nan if snapshot.loss is None else snapshot.loss
        self.scalars.add(step, np.array([loss, snapshot.batches_per_second]))
        self._take_rates(step, snapshot.learning_rates)
        self._take_metrics(step, snapshot.metrics)
        self._take_filters(step)
        self.numbers += 1

    def every(self, statistic: str) -> int:
        """It is measured on every how manyth batch now."""
        if self.snapshot is None:
            return 1
        known = dict(zip(self.snapshot.statistics, self.snapshot.sampling_intervals, strict=False))
        return known.get(statistic, 1)

    def _measured(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """The newest value of each statistic; one that is thinned out keeps its last."""
        latest = dict(zip(snapshot.statistics, snapshot.values, strict=True))
        for name, row in latest.items():
            last = self.latest.get(name)
            if self.every(name) > 1 and last is not None:
                latest[name] = np.where(np.isnan(row), last, row)
        return latest

    def _take_rates(self, step: int, rates: list[float]) -> None:
        if not rates:
            return
        if len(rates) != self.learning_rates.width:
            n_known = self.learning_rates.width
            source = np.arange(len(rates))
            self.learning_rates.select_columns(np.where(source < n_known, source, -1))
        self.learning_rates.add(step, np.array(rates))

    def _take_metrics(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if name not in self.metrics:
                if len(self.metrics) >= MAX_METRICS:
                    continue
                self.metrics[name] = History(1, SCALAR_ROWS)
            if self._metric_values.get(name) != value:  # one point per change, not per batch
                self._metric_values[name] = value
                self.metrics[name].add(step, np.array([value]))

    def _take_filters(self, step: int) -> None:
        gradient, activation = (self.latest.get(name) for name in FILTER_STATISTICS)
        if gradient is None or activation is None or not len(gradient):
            return
        self.zero_streak = np.where(activation == 0, self.zero_streak + 1, 0).astype(np.int32)
        self._dead = None
        self._take_layers(step)
        self.filters.add(step, np.concatenate([gradient, activation]))

    def _take_layers(self, step: int) -> None:
        """The mean of every statistic over the filters of each layer."""
        known = {**self.latest, "dead": self.dead().astype(np.float32)}
        names = [name for name in self.layers if name in known]
        means = means_of_runs(np.stack([known[name] for name in names]), self.offsets)
        for name, row in zip(names, means, strict=True):
            self.layers[name].add(step, row)

    def _take_reply(self, reply: Reply) -> None:
        self.talk += 1
        record = self.records.get(reply.id)
        if record is None:
            if isinstance(reply, Planned | Refused):
                self.plans[reply.id] = reply
                while len(self.plans) > MAX_PLANS:
                    self.plans.popitem(last=False)
        elif isinstance(reply, Applied):
            record.state, record.step = "applied", reply.step
            record.version, record.title = reply.version, reply.plan.title or record.title
            record.plan, record.output_change = reply.plan, reply.output_change
            self._name_mark(record)
            record.layers = list(dict.fromkeys(part.layer for part in reply.plan.filter_changes))
            if self.structure is not None:
                self._tell_widths(self.structure)
        elif isinstance(reply, Done):
            record.state, record.text = "done", reply.detail
        elif isinstance(reply, Refused):
            record.state, record.text = "refused", reply.reason
