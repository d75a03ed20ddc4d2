"""Where columns and blocks are: the area for all of them, the box of each, and lanes of paths."""

from __future__ import annotations

from dataclasses import dataclass

from .columns import Column

__all__ = ["Area", "Box", "Placement", "Via"]


@dataclass(frozen=True)
class Area:
    """Space available for the columns, px. It begins at ``left``.

    Before the rank ``split``, the columns leave a space of ``split_width`` free, which ``width``
    does not contain.
    """

    width: float
    bottom: float
    top: float
    margin: float
    left: float = 0.0
    split: int = 0
    split_width: float = 0.0

    @property
    def height(self) -> float:
        return max(60.0, self.bottom - self.top)


@dataclass(frozen=True)
class Box:
    """Where a unit is, px: the bounds of a column, or the frame of a closed block."""

    left: float
    right: float
    top: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True)
class Via:
    """A lane without nodes: paths of unit ``source`` pass the columns of a rank here."""

    source: int
    rank: int


@dataclass(frozen=True)
class Placement:
    """Where everything is.

    Attributes:
        columns: one per layer.
        boxes: one per unit.
        vias: the space of each lane that only lets paths pass.
        split_x: where the free space between the columns begins; 0 if there is none.
    """

    columns: list[Column]
    boxes: list[Box]
    vias: dict[Via, Box]
    split_x: float = 0.0
