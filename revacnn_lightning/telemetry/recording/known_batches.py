"""The layouts of earlier batches, for batches that do the same.

Which statistics are sampled differs from batch to batch, if ``max_overhead`` limits some. Few kinds
of batches follow each other in turns.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from revacnn_lightning.telemetry.recording.batch_recording import RecordingLayout
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums

__all__ = ["KnownBatches"]

MAX_KINDS = 8  # a layout has 8 bytes per value


class KnownBatch(NamedTuple):
    """A regular batch. ``kept_sums`` are the sums of weights that outlive a batch."""

    events: list[Any]
    kept_sums: list[int]
    layout: RecordingLayout


class KnownBatches:
    """Finds the layout of a regular batch, if one like it has been evaluated."""

    def __init__(self) -> None:
        self._batches: dict[Hashable, KnownBatch] = {}  # by what they sample
        self._last_sampled: Hashable = None  # by the previous batch, if it was known

    def clear(self) -> None:
        """Forget all batches, because maps, weights or layers may be others."""
        self._batches.clear()
        self._last_sampled = None

    def find_layout(
        self, sampled: Hashable, events: list[Any], all_weights: Iterable[WeightSums]
    ) -> RecordingLayout | None:
        """Return the layout of a batch; None if no batch like it is known.

        Args:
            sampled: what the batch samples.
            events: what it has done, see `BatchState.events`.
            all_weights: the weights of all layers.
        """
        last_sampled, self._last_sampled = self._last_sampled, None
        known = self._batches.get(sampled)
        if known is None or known.events != events:
            return None
        # Batches in between may have measured some sums of weights elsewhere.
        if sampled != last_sampled and known.kept_sums != _kept_sums(all_weights):
            return None
        self._last_sampled = sampled
        return known.layout

    def keep(
        self,
        sampled: Hashable,
        events: list[Any],
        all_weights: Iterable[WeightSums],
        layout: RecordingLayout,
    ) -> None:
        """Keep the layout of a batch that was evaluated; see `find_layout`."""
        if len(self._batches) >= MAX_KINDS:
            self._batches.clear()
        self._batches[sampled] = KnownBatch(events.copy(), _kept_sums(all_weights), layout)
        self._last_sampled = sampled


def _kept_sums(all_weights: Iterable[WeightSums]) -> list[int]:
    """Return which sums of weights outlive a batch. In known batches, they are slots."""
    return [
        id(kept)
        for one in all_weights
        for kept in (one.norm, one.norm_after_step, one.update_norm, one.optimizer_gradient)
    ]
