"""Chooses channels to remove or to copy so that parts of equal size stay equal.

A channel shuffle, ``chunk`` and attention heads divide channels into parts whose size follows from
the number of all. `ChannelGroups` couples the channels at equal positions of these parts. A series
of shuffles couples all channels that way, and parts that overlap many. So where many filters of a
layer are coupled, this looks for a choice of fewer (`part_search.py`).

A choice is exact if each channel stays in its parts. That depends on the order of the channels
behind each division: a shuffle of fewer channels permutes them differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from revacnn_lightning.steering.planning.part_search import balanced_choices
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.records import EqualParts

__all__ = ["choose_balanced_groups", "dividing_module_names", "keeps_equal_parts"]

MANY = 4  # fewer filters are looked for if at least one in so many of a layer is coupled


def choose_balanced_groups(
    channel_groups: ChannelGroups,
    chosen_groups: Sequence[int],
    layer: str,
    filters: Sequence[int],
    copy_count: int,
) -> tuple[ChannelGroups, list[int]] | None:
    """Choose the channel groups to edit so that parts of equal size stay equal.

    Args:
        channel_groups: the channel groups of the model.
        chosen_groups: the groups to edit if equal parts change at equal positions.
        filters: the filters of ``layer`` that must be edited; an empty list leaves the choice open.
        copy_count: how many copies of each channel are added; -1 removes the channels.

    Returns:
        The channel groups and those of them to edit: ``chosen_groups``, or others of fewer filters.
        None if no choice was found that keeps each channel in its parts and each layer non-empty.
    """
    given = channel_groups, list(chosen_groups)
    if not channel_groups.equal_parts:
        return given
    is_exact = _is_exact(channel_groups, chosen_groups, copy_count)
    own = len(channel_groups.filters_in(chosen_groups).get(layer, ()))
    if is_exact and (own < 2 or own * MANY < len(channel_groups.filters[layer])):
        return given
    divisions = _connected(channel_groups, chosen_groups)
    finer, limit = (
        channel_groups.ignoring_part_positions,
        _filter_count(channel_groups, chosen_groups),
    )
    for found in (
        balanced_choices(finer, divisions, layer, filters, copy_count) if divisions else ()
    ):
        if is_exact and _filter_count(finer, found) >= limit:
            return given
        if _is_exact(finer, found, copy_count):
            return finer, found
    return given if is_exact else None


def dividing_module_names(channel_groups: ChannelGroups, chosen_groups: Sequence[int]) -> list[str]:
    """Return the modules that divide channels of these groups into equal parts."""
    edited = _mask(channel_groups, chosen_groups)
    found = [
        each.where
        for each in channel_groups.equal_parts
        if edited[np.concatenate(each.parts)].any()
    ]
    return list(dict.fromkeys(found))


def keeps_equal_parts(
    channel_groups: ChannelGroups, chosen_groups: Iterable[int], copy_count: int
) -> bool:
    """Return whether each channel stays in its parts if these groups are removed or copied."""
    orders = _Orders(_mask(channel_groups, chosen_groups), copy_count)
    return all(orders.divide(each) for each in channel_groups.equal_parts)


class _Orders:
    """The order of the channels behind each division, before and after an edit."""

    def __init__(self, edited: np.ndarray, copy_count: int) -> None:
        self._counts = np.where(edited, 1 + copy_count, 1)  # of each channel after the edit
        self._known: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}  # by the first channel

    def divide(self, division: EqualParts) -> bool:
        """Return whether each part has the channels after the edit that it should have."""
        before = np.concatenate(division.parts)
        if not self._known and (self._counts[before] == 1).all():
            return True  # nothing has changed so far
        after = self._after(before)
        count = len(division.parts)
        size = -(-len(after) // count)
        if not division.is_split and size * count != len(after):
            return False
        for i, part in enumerate(division.parts):
            new = after[i * size : (i + 1) * size]
            if not np.array_equal(np.sort(self._edited(part)), np.sort(new)):
                return False
            self._remember(part, new)
        if not division.is_split:  # a transposition may follow, as in a shuffle
            self._remember(_transposed(before, count), _transposed(after, count))
        return True

    def _edited(self, channels: np.ndarray) -> np.ndarray:
        return np.repeat(channels, self._counts[channels])

    def _remember(self, before: np.ndarray, after: np.ndarray) -> None:
        self._known.setdefault(int(before[0]), []).insert(0, (before, after))

    def _after(self, before: np.ndarray) -> np.ndarray:
        """Return the channels after the edit: those of earlier divisions in the order of these."""
        pieces, i = [], 0
        while i < len(before):
            for old, new in self._known.get(int(before[i]), ()):
                if np.array_equal(before[i : i + len(old)], old):
                    pieces.append(new)
                    i += len(old)
                    break
            else:
                pieces.append(self._edited(before[i : i + 1]))
                i += 1
        return np.concatenate(pieces)


def _transposed(channels: np.ndarray, rows: int) -> np.ndarray:
    return channels.reshape(rows, -1).T.ravel()


def _mask(channel_groups: ChannelGroups, chosen_groups: Iterable[int]) -> np.ndarray:
    """Return, for each channel, whether it belongs to one of these groups."""
    return np.isin(
        channel_groups.group_of_each(np.arange(len(channel_groups.arrival))), list(chosen_groups)
    )


def _is_exact(channel_groups: ChannelGroups, chosen_groups: Sequence[int], copy_count: int) -> bool:
    """Return whether an edit of these groups keeps parts, and some channels of each tensor."""
    sizes = (
        (channel_groups.dimension(*at).size, len(own))
        for at, own in channel_groups.members(chosen_groups).items()
    )
    is_left = copy_count > 0 or all(own < size for size, own in sizes)
    return is_left and keeps_equal_parts(channel_groups, chosen_groups, copy_count)


def _filter_count(channel_groups: ChannelGroups, chosen_groups: Sequence[int]) -> int:
    """Return how many filters of all layers belong to these groups."""
    return sum(map(len, channel_groups.filters_in(chosen_groups).values()))


def _connected(channel_groups: ChannelGroups, chosen_groups: Sequence[int]) -> list[EqualParts]:
    """Return the divisions of the channels of these groups, and of what is divided with them."""
    divided = [
        set(channel_groups.groups_of_channels(np.concatenate(e.parts)))
        for e in channel_groups.equal_parts
    ]
    reached, count = set(chosen_groups), 0
    while count < len(reached):
        count = len(reached)
        reached |= set().union(*(each for each in divided if each & reached))
    return [e for e, own in zip(channel_groups.equal_parts, divided, strict=True) if own & reached]
