"""Compares a layer in all ranks while a viewer requests it: `RankValues` messages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.rank_messages import RankValues
from revacnn_lightning.protocol.requests import InspectRanks
from revacnn_lightning.protocol.snapshot import Snapshot
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.ranks.rank_statistics import PendingReduction, RankStatistics
from revacnn_lightning.telemetry import Recorder

__all__ = ["RankValuesCollector"]

SELECTION_SECONDS = 10.0  # how long a selection lasts unless it is renewed
SECONDS_BETWEEN = 1.0  # between two comparisons, each of which reads all weights


class RankValuesCollector:
    """Collects `RankValues`: the values of the layer that a viewer requests, from each rank.

    Args:
        statistics: the statistics of all ranks; None if there is only one rank.
        recorder: knows the layers.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        statistics: RankStatistics | None,
        recorder: Recorder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._statistics = statistics
        self._recorder = recorder
        self._clock = clock
        self._layer = ""
        self._expires_at = self._next_time = -math.inf
        self._arrived: list[RankValues] = []

    def select(self, request: InspectRanks) -> None:
        """Compare this layer for the next few seconds.

        Raises:
            EditRefusedError: there is one process, or no such layer.
        """
        if self._statistics is None:
            raise EditRefusedError("this training runs in one process: it has no ranks to compare")
        if request.layer not in self._recorder.layers:
            raise EditRefusedError(f"there is no watched layer {request.layer} in the network")
        if request.layer != self._layer:
            self._layer, self._next_time = request.layer, -math.inf
        self._expires_at = self._clock() + SELECTION_SECONDS

    def collect(self, context: BatchContext) -> Sequence[RankValues]:
        """Return what has arrived, and request the next values if they are due."""
        now, statistics = self._clock(), self._statistics
        if statistics is not None and self._next_time <= now < self._expires_at:
            self._next_time = now + SECONDS_BETWEEN
            statistics.wanted_layer = self._layer
        arrived, self._arrived = self._arrived, []
        return arrived

    def receive(self, reduction: PendingReduction, snapshot: Snapshot) -> None:
        """Receive a sum over all ranks that has arrived."""
        each = reduction.layer_values_by_rank()
        if each is None:
            return
        self._arrived.append(
            RankValues(
                run=snapshot.run,
                version=snapshot.version,
                step=snapshot.step,
                layer=reduction.layer,
                statistics=each.statistics,
                losses=each.losses,
                in_step=[one == each.checksums[0] for one in each.checksums],
                nonfinite_weights=each.nonfinite_weights,
                values=each.values,
            )
        )

    def reset(self) -> None:
        """Discard what is known of the old network."""
        self._arrived.clear()
