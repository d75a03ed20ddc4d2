"""The loss and the metrics before and after each edit, by which to judge whether it has helped."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence

from msgspec import Struct

from revacnn_lightning.protocol.messages import Snapshot

from .metric_names import LOSS

__all__ = ["EditEffect", "EditEffects", "MeanAndSpread"]

WINDOW = 50  # batches before an edit, and after it
REPORTS = (10, 25, WINDOW)  # batches after the edit at which its effect is reported
MAX_EFFECTS = 64
MAX_METRICS = 64


class MeanAndSpread(Struct, frozen=True):
    """The mean and the standard deviation of a value over some batches.

    Attributes:
        mean: the mean over the batches.
        spread: the standard deviation; NaN for a single value.
    """

    mean: float
    spread: float = math.nan


class EditEffect(Struct):
    """What was measured around an edit, or around several within `REPORTS[0]` batches.

    Attributes:
        before, after: the values by the name of the metric; `LOSS` is the training loss.
        batches_before, batches_after: number of batches measured.
        n_edits: number of edits that share this effect.
    """

    before: dict[str, MeanAndSpread] = {}
    after: dict[str, MeanAndSpread] = {}
    batches_before: int = 0
    batches_after: int = 0
    n_edits: int = 1


class EditEffects:
    """Measures the effects of the edits of one run, from the snapshots that arrive.

    The windows of two edits do not overlap: they end where the network changes again.

    Attributes:
        revision: incremented whenever a reported effect changes.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._effects: OrderedDict[int, EditEffect] = OrderedDict()  # by structure version
        self._newest: EditEffect | None = None
        self._before = _Values()  # since the last edit
        self._after = _Values()

    def effect_of(self, version: int) -> EditEffect | None:
        """Return the effect of the edit that led to this structure version, if it is known."""
        return self._effects.get(version)

    def begin_measuring(self, version: int) -> None:
        """Begin to measure the edit that has led to this structure version."""
        if self._newest is not None and self._after.n_batches < REPORTS[0]:
            self._newest.n_edits += 1
        else:
            self._report()  # all that was measured of the edit before
            levels = {**self._before.last_known(), **self._before.levels()}
            self._newest = EditEffect(levels, batches_before=min(WINDOW, self._before.n_batches))
        self._effects[version] = self._newest
        while len(self._effects) > MAX_EFFECTS:
            self._effects.popitem(last=False)
        self._before, self._after = self._before.successor(), self._before.successor()
        self.revision += 1

    def add(self, snapshot: Snapshot) -> None:
        """Add the loss and the metrics of a snapshot of the newest structure."""
        self._before.add(snapshot)
        if self._newest is None:
            return
        if self._after.n_batches < WINDOW:
            known = self._after.n_batches
            self._after.add(snapshot)
            is_report = any(known < due <= self._after.n_batches for due in REPORTS)
        else:  # metrics that are logged once per epoch
            is_report = self._after.add_first_values(snapshot)
        if is_report:
            self._report()

    def _report(self) -> None:
        if self._newest is not None:
            self._newest.after = self._after.levels()
            self._newest.batches_after = self._after.n_batches
            self.revision += 1


class _Values:
    """The loss and the metrics of the latest batches.

    A metric that was not logged in a batch keeps its value, so it counts only where it changes.

    Args:
        known: the values of all metrics before the first batch.
    """

    def __init__(self, known: dict[str, float] | None = None) -> None:
        self.n_batches = 0
        self._known = dict(known or {})
        self._changes: dict[str, deque[tuple[int, float]]] = {}  # (number of the batch, value)

    def successor(self) -> _Values:
        """Return the values of the batches to come."""
        return _Values(self._known)

    def add(self, snapshot: Snapshot) -> None:
        self.n_batches += snapshot.batch_count
        if snapshot.loss is not None:
            self._add_change(LOSS, snapshot.loss)
        for name in self._changed(snapshot):
            self._add_change(name, snapshot.metrics[name])

    def add_first_values(self, snapshot: Snapshot) -> bool:
        """Add only what has not been logged yet; return whether there was something."""
        new = [name for name in self._changed(snapshot) if name not in self._changes]
        for name in new:
            self._add_change(name, snapshot.metrics[name])
        return bool(new)

    def levels(self) -> dict[str, MeanAndSpread]:
        """Return the level of each value over the last `WINDOW` batches.

        A metric that has not changed in this time has the level of its last change.
        """
        first, levels = self.n_batches - WINDOW, {}
        for name, changes in self._changes.items():
            latest = [value for number, value in changes if number > first]
            levels[name] = _level(latest or [changes[-1][1]])
        return {name: level for name, level in levels.items() if math.isfinite(level.mean)}

    def last_known(self) -> dict[str, MeanAndSpread]:
        """Return the last value of each metric, also of those logged before the first batch."""
        return {
            name: MeanAndSpread(value)
            for name, value in self._known.items()
            if math.isfinite(value)
        }

    def _changed(self, snapshot: Snapshot) -> list[str]:
        """Return the metrics that have changed, and remember their values."""
        known, changed = self._known, []
        for name, value in snapshot.metrics.items():
            is_new = name not in known
            if (not is_new and known[name] == value) or (is_new and len(known) >= MAX_METRICS):
                continue
            known[name] = value
            if name != LOSS or snapshot.loss is None:
                changed.append(name)
        return changed

    def _add_change(self, name: str, value: float) -> None:
        changes = self._changes.setdefault(name, deque(maxlen=WINDOW))
        changes.append((self.n_batches, value))


def _level(values: Sequence[float]) -> MeanAndSpread:
    """Return mean and standard deviation of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    n = len(finite)
    if n == 0:
        return MeanAndSpread(math.nan)
    mean = math.fsum(finite) / n
    if n == 1:
        return MeanAndSpread(mean)
    return MeanAndSpread(
        mean, math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (n - 1))
    )
