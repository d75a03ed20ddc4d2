"""How much space the input and the outputs take beside the columns of the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["NO_SPACE", "EndSpace", "end_space", "with_names"]

ROOMY_RANK = 64.0  # px per rank that must be left beside large ends


@dataclass(frozen=True)
class EndSpace:
    """Space beside the columns, px.

    Attributes:
        left, right: its width.
        picture: side of the picture of the input.
        way: on the right, between the columns' space and the nodes of the outputs.
        besides: on the right, what is not for the name of a class.
        extra: by how much the right may grow for long names.
        facts: height below the last output for the loss.
        has_words: whether there is room for words behind a probability.
    """

    left: float
    right: float
    picture: float
    way: float
    besides: float = 0.0
    extra: float = 0.0
    facts: float = 62.0
    has_words: bool = False


NO_SPACE = EndSpace(0.0, 0.0, 0.0, 0.0)
NARROW = EndSpace(56.0, 92.0, 34.0, 10.0, besides=56.0, extra=16.0, facts=92.0)
MEDIUM = EndSpace(90.0, 118.0, 44.0, 22.0, besides=68.0, extra=84.0)
WIDE = EndSpace(136.0, 172.0, 88.0, 28.0, besides=122.0, extra=110.0, has_words=True)
MIN_MEDIUM = 520.0  # px: width of a view


def end_space(width: float, n_ranks: int) -> EndSpace:
    """Return the space of the ends in a view of this width with so many ranks."""
    if width < MIN_MEDIUM:
        return NARROW
    return WIDE if width - WIDE.left - WIDE.right >= ROOMY_RANK * max(8, n_ranks) else MEDIUM


def with_names(space: EndSpace, width: float) -> EndSpace:
    """Return the space with room on the right for names of classes of this width, px."""
    extra = min(space.extra, width - (space.right - space.besides))
    return replace(space, right=space.right + extra) if extra > 0 else space
