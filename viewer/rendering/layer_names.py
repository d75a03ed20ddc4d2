"""Short names of layers that are still unique in their network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["shorten_middle", "shortest_unique_names"]

ELLIPSIS = "…"


def shortest_unique_names(names: Sequence[str]) -> list[str]:
    """Return the shortest ending of each module path that no other path ends with.

    An ending that is only an index gets the part before it as well: ``block.0``, not ``0``.
    """
    depths = [_meaningful_depth(name) for name in names]
    for _ in range(max((name.count(".") for name in names), default=0)):
        endings = [_ending(name, depth) for name, depth in zip(names, depths, strict=True)]
        counts = Counter(endings)
        if max(counts.values()) == 1:
            break
        depths = [d + (counts[e] > 1) for d, e in zip(depths, endings, strict=True)]
    return [_ending(name, depth) for name, depth in zip(names, depths, strict=True)]


def shorten_middle(name: str, length: int) -> str:
    """Return a name of at most ``length`` characters; its beginning and its end are kept."""
    if len(name) <= length:
        return name
    end = (length - 1 + 1) // 2
    return name[: length - 1 - end] + ELLIPSIS + name[len(name) - end :]


def _ending(name: str, depth: int) -> str:
    return ".".join(name.split(".")[-depth:])


def _meaningful_depth(name: str) -> int:
    """Return how many parts from the end hold the first part that is no index."""
    for depth, part in enumerate(reversed(name.split(".")), start=1):
        if not part.isdigit():
            return depth
    return name.count(".") + 1
