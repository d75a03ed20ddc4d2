"""The sums of a batch in one tensor on the device, which is copied to the host in one piece."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ROWS", "FlatBuffer", "Slots"]

# What a slot of a layer holds. The rows of the default statistics come first, so that the others
# need not be copied to the host. ``norm_after_step`` is what the host divides updates by.
ROWS = (
    "norm_after_step",
    "weight_norm",
    "update_ratio",
    "gradient",
    "activation",
    "optimizer_gradient",
    "activation_gradient",
    "firing",
    "signal_to_noise",
    "price",
)

Slots = dict[str, Tensor]


class FlatBuffer:
    """One float32 number per row and filter. Reductions write straight into its slots.

    Args:
        width: the number of filters.
        device: where the reductions run.

    Attributes:
        values: (1 + rows × filters,). The first one is always zero, the others follow row by row.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.values = torch.zeros(1 + len(ROWS) * width, device=device)
        self._width = width
        self._offsets: dict[int, int] = {}  # by the id of a slot
        self._kept: list[Slots] = []  # so that these ids stay theirs

    def slots(self, start: int, stop: int) -> Slots:
        """Return the slots of the layer with these filters: a tensor (stop - start,) per row."""
        slots = {name: self.part(name, start, stop) for name in ROWS}
        self._offsets |= {id(slots[name]): self.row_offset(name) + start for name in ROWS}
        self._kept.append(slots)
        return slots

    def part(self, row: str, start: int, stop: int) -> Tensor:
        """Return a part of a row, which may have the filters of several layers: (stop - start,)."""
        offset = self.row_offset(row)
        return self.values[offset + start : offset + stop]

    def row(self, name: str) -> Tensor:
        """Return a row: (filters,)."""
        return self.part(name, 0, self._width)

    def slot_offset(self, slot: Tensor) -> int | None:
        """Return the position of a slot in `values`; None for any other tensor."""
        return self._offsets.get(id(slot))

    def rows_until(self, names: set[str]) -> Tensor:
        """Return the beginning of `values` with these rows. Names without a row are ignored."""
        count = max((ROWS.index(name) + 1 for name in names if name in ROWS), default=0)
        return self.values[: 1 + count * self._width]

    def row_offset(self, row: str) -> int:
        """Return the position of a row in `values`."""
        return 1 + ROWS.index(row) * self._width
