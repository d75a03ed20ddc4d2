"""The loss before and after an edit, from the batches that a client has received."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from revacnn_lightning.protocol.messages import Snapshot

__all__ = ["LossChange", "RecentLosses"]

KEPT = 512  # snapshots
MIN_BEFORE = 10  # batches before an edit that are of one structure, else those before count, too


@dataclass(frozen=True)
class LossChange:
    """The mean training loss before and after an edit.

    The batches differ, and the network is trained on: a small change says little, as `error` shows.

    Attributes:
        before: mean over `batches_before` batches; NaN if the client has received none.
        after: mean over `batches_after` batches.
        error: standard error of `change`, as if the batches were independent; NaN for less than two
            batches on a side.
        batches_before: number of batches before the edit.
        batches_after: number of batches after the edit.
        edits: number of edits between the two; 1 if the change is that of this edit alone.
    """

    before: float
    after: float
    error: float
    batches_before: int
    batches_after: int
    edits: int

    @property
    def change(self) -> float:
        """The mean after the edit minus that before it; negative if the loss has fallen."""
        return self.after - self.before


class RecentLosses:
    """The losses of the last snapshots of a run, each with its structure version."""

    def __init__(self) -> None:
        self._run = ""
        self._losses: deque[tuple[int, float, int]] = deque(maxlen=KEPT)  # version, loss, batches

    def add(self, snapshot: Snapshot) -> None:
        """Add a snapshot, unless its loss is unknown."""
        if snapshot.run != self._run:
            self._losses.clear()
            self._run = snapshot.run
        if snapshot.loss is not None:
            self._losses.append((snapshot.version, snapshot.loss, snapshot.batch_count))

    def is_complete(self, version: int, batch_count: int) -> bool:
        """Return whether all batches that `change_after` compares after an edit are known.

        They are if so many batches were trained with the structure ``version``. No more follow if
        the network was edited again.
        """
        known = sum(count for one, _, count in self._losses if one == version)
        return known >= batch_count or any(one > version for one, _, _ in self._losses)

    def change_after(self, version: int, batch_count: int) -> LossChange:
        """Return the change of the loss by the edit that led to a structure.

        Args:
            version: the version of that structure.
            batch_count: about how many batches to compare at most, before the edit and after it.
        """
        first = version - 1
        older = [one for one in self._losses if one[0] < version]
        while first > 0 and 0 < sum(n for one, _, n in older if one >= first) < MIN_BEFORE:
            first -= 1
        before = _latest([one for one in older if one[0] >= first], batch_count)
        after = _latest([one for one in self._losses if one[0] == version][::-1], batch_count)
        versions = [one for one, _, _ in before]
        (mean_before, variance_before), (mean_after, variance_after) = _mean(before), _mean(after)
        return LossChange(
            mean_before,
            mean_after,
            math.sqrt(variance_before + variance_after),
            sum(count for _, _, count in before),
            sum(count for _, _, count in after),
            version - min(versions, default=version - 1),
        )


def _latest(losses: list[tuple[int, float, int]], batches: int) -> list[tuple[int, float, int]]:
    """Return the last snapshots that hold at least so many batches."""
    found: list[tuple[int, float, int]] = []
    for one in reversed(losses):
        if sum(count for _, _, count in found) >= batches:
            break
        found.append(one)
    return found


def _mean(losses: list[tuple[int, float, int]]) -> tuple[float, float]:
    """Return the mean over all batches, and the variance of that mean; NaN if unknown."""
    total = sum(count for _, _, count in losses)
    if not total:
        return math.nan, math.nan
    mean = sum(loss * count for _, loss, count in losses) / total
    n = len(losses)
    if n < 2:
        return mean, math.nan
    return mean, sum((loss - mean) ** 2 for _, loss, _ in losses) / (n - 1) / n
