"""How much space the input and the outputs take beside the columns of the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["NO_SPACE", "InputOutputSpace", "input_output_space", "widen_for_names"]

ROOMY_RANK = 64.0  # px per rank that must be left beside a large input and outputs


@dataclass(frozen=True)
class InputOutputSpace:
    """The space for the input and the outputs beside the columns, px.

    Attributes:
        left, right: the width of the space of the input and of the outputs.
        picture: the side of the picture of the input.
        way: the distance between the space of the columns and the nodes of the outputs.
        besides: the part of ``right`` that is not for the names of classes.
        extra: by how much ``right`` may grow for long names.
        facts: the height below the last output for the loss.
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


NO_SPACE = InputOutputSpace(0.0, 0.0, 0.0, 0.0)
NARROW = InputOutputSpace(56.0, 92.0, 34.0, 10.0, besides=56.0, extra=16.0, facts=92.0)
MEDIUM = InputOutputSpace(90.0, 118.0, 44.0, 22.0, besides=68.0, extra=84.0)
WIDE = InputOutputSpace(136.0, 172.0, 88.0, 28.0, besides=122.0, extra=110.0, has_words=True)
MIN_MEDIUM = 520.0  # px: width of a view


def input_output_space(width: float, n_ranks: int) -> InputOutputSpace:
    """Return the space for the input and the outputs in a view of this width, px."""
    if width < MIN_MEDIUM:
        return NARROW
    return WIDE if width - WIDE.left - WIDE.right >= ROOMY_RANK * max(8, n_ranks) else MEDIUM


def widen_for_names(space: InputOutputSpace, name_width: float) -> InputOutputSpace:
    """Return the space, wider on the right for names of classes that are this wide, px."""
    extra = min(space.extra, name_width - (space.right - space.besides))
    return replace(space, right=space.right + extra) if extra > 0 else space
