"""How much space the input and the outputs take beside the columns of the network."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_SPACE", "EndSpace", "end_space"]

ROOMY_RANK = 64.0  # px per rank that must be left beside large ends


@dataclass(frozen=True)
class EndSpace:
    """Space beside the columns, px.

    Attributes:
        left, right: its width.
        picture: side of the picture of the input.
        way: on the right, between the columns' space and the nodes of the outputs.
    """

    left: float
    right: float
    picture: float
    way: float


NO_SPACE = EndSpace(0.0, 0.0, 0.0, 0.0)
NARROW = EndSpace(56.0, 92.0, 34.0, 10.0)
MEDIUM = EndSpace(90.0, 118.0, 44.0, 22.0)
WIDE = EndSpace(136.0, 172.0, 88.0, 28.0)
MIN_MEDIUM = 520.0  # px: width of a view


def end_space(width: float, n_ranks: int) -> EndSpace:
    """Return the space of the ends in a view of this width with so many ranks."""
    if width < MIN_MEDIUM:
        return NARROW
    return WIDE if width - WIDE.left - WIDE.right >= ROOMY_RANK * max(8, n_ranks) else MEDIUM
