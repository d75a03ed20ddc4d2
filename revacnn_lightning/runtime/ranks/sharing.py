"""What rank 0 exchanges with the others about the statistics that all of them record."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from revacnn_lightning.telemetry.statistics import REQUESTED_STATISTICS, STATISTICS

__all__ = [
    "CanonicalColumnOrder",
    "StatisticsInstruction",
    "statistics_from_bits",
    "statistics_to_bits",
]

NAMES = (*STATISTICS, *REQUESTED_STATISTICS)


class StatisticsInstruction(NamedTuple):
    """Which statistics the ranks record from this batch on, and what they do with the last ones.

    Attributes:
        statistics: one bit per recorded statistic; 0 if none is recorded.
        is_due: 1 if what was recorded since the last time is summed up over all ranks now.
        columns: the number of filters that rank 0 has recorded.
        checksum: a checksum of the names and widths of their layers.
        first_column: the column of the first filter of the layer whose values rank 0 gets from
            each rank.
        width: the number of filters of that layer; 0 if there is no such layer.
    """

    statistics: int = 0
    is_due: int = 0
    columns: int = 0
    checksum: int = 0
    first_column: int = 0
    width: int = 0


def statistics_to_bits(names: Iterable[str]) -> int:
    """Return a number with a bit for each statistic."""
    return sum(1 << NAMES.index(name) for name in set(names) if name in NAMES)


def statistics_from_bits(bits: int) -> list[str]:
    """Return the statistics whose bits are set, in an order that all ranks share."""
    return [name for i, name in enumerate(NAMES) if bits >> i & 1]


class CanonicalColumnOrder:
    """The order of the filters (columns) that all ranks share: sorted by the names of the layers.

    The order of their forwards, in which a rank records them, may differ between ranks.

    Args:
        layers: the names of the layers, in the order in which this rank records them.
        widths: the number of filters of each layer.

    Attributes:
        indices: for each shared column, its index among the columns of this rank.
        columns: the number of filters.
        checksum: a checksum of the names and widths.
    """

    def __init__(self, layers: Sequence[str], widths: Sequence[int]) -> None:
        self.layers, self.widths = list(layers), list(widths)
        starts = np.cumsum([0, *widths])
        order = sorted(range(len(layers)), key=lambda i: layers[i])
        parts = [np.arange(starts[i], starts[i + 1]) for i in order]
        self.indices = np.concatenate(parts) if parts else np.zeros(0, int)
        self.columns = int(starts[-1])
        self.checksum = zlib.crc32(repr([(layers[i], widths[i]) for i in order]).encode())

    def slice_of(self, layer: str) -> tuple[int, int]:
        """Return the first shared column of a layer and how many it has; (0, 0) without it."""
        first = 0
        for name, width in sorted(zip(self.layers, self.widths, strict=True)):
            if name == layer:
                return first, width
            first += width
        return 0, 0
