"""Where columns and blocks are: the area for all of them, the box of each, and lanes of paths."""

from __future__ import annotations

from dataclasses import dataclass

from .columns import Column

__all__ = ["Box", "ColumnArea", "PathLane", "Placement"]


@dataclass(frozen=True)
class ColumnArea:
    """The space in which the columns of the layers are placed, px. It begins at ``left``.

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
    """A rectangle, px: the bounds of a column, or the frame of a closed block or a picture."""

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
class PathLane:
    """A gap between the columns of a rank, through which paths from a unit pass.

    Attributes:
        source: the index of the unit that the paths come from.
        rank: the rank that the paths pass.
    """

    source: int
    rank: int


@dataclass(frozen=True)
class Placement:
    """The positions of the columns, their frames and the lanes of the paths.

    Attributes:
        columns: one per layer.
        boxes: one per unit.
        path_lanes: the rectangle of each lane.
        split_x: where the free space between the columns begins; 0 if there is none.
    """

    columns: list[Column]
    boxes: list[Box]
    path_lanes: dict[PathLane, Box]
    split_x: float = 0.0
