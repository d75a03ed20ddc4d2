"""Searches for the fewest channels to remove or to copy after which equal parts are equal again.

It is an integer program, with one variable for each group of coupled channels: whether it is
chosen. Each part of a division must change by as many channels as the others.

Behind a shuffle, a split decides by the position of a channel in which part it is, and the next
shuffle moves it from there. So a channel of a row takes a path of parts through a series of
shuffles. It stays in its parts if as many channels as before, and their copies, take each path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.records import EqualParts

__all__ = ["balanced_choices"]

MAX_SHARE = 0.5  # of the channels of each part of a shuffle that are chosen
MAX_NODES = 1000  # of the search

Shuffle = tuple[EqualParts, EqualParts]  # into rows, and the split of the transposed rows


def balanced_choices(
    channel_groups: ChannelGroups,
    divisions: Sequence[EqualParts],
    layer: str,
    filters: Sequence[int],
    copy_count: int,
) -> Iterator[list[int]]:
    """Yield choices of groups to edit after which parts of equal size are equal again.

    Args:
        channel_groups: the channel groups, in which equal parts are not coupled.
        divisions: the divisions of channels into equal parts.
        filters: the filters of ``layer`` that must be chosen; an empty list leaves the choice open.
        copy_count: how many copies of each channel are added; -1 removes the channels.
    """
    shuffles = _shuffles(divisions)
    paths = _Paths(shuffles)
    smallest = min((len(rows.parts[0]) for rows, _ in shuffles), default=0)
    for each in range(1, int(MAX_SHARE * smallest) + 1) if shuffles else (0,):
        program = _Program(channel_groups, divisions, copy_count)
        own = channel_groups.groups_of_filters(
            layer, filters or range(len(channel_groups.filters[layer]))
        )
        program.choose(own, at_least=len(own) if filters else 1)
        for division in divisions:
            program.divide(division)
        program.shuffle(shuffles, paths, each)
        found = program.solve()
        if found is not None:
            yield found


def _shuffles(divisions: Sequence[EqualParts]) -> list[Shuffle]:
    """Return the pairs of a division into rows and a split of the channels transposed by it."""
    pairs = []
    for rows in divisions:
        shuffled = np.stack(rows.parts).T.ravel() if not rows.is_split else np.zeros(0, int)
        pairs += [
            (rows, split)
            for split in divisions
            if split.is_split and np.array_equal(np.concatenate(split.parts), shuffled)
        ]
    return pairs


class _Program:
    """The integer program. Its first variables are the groups, the others sizes of parts."""

    def __init__(
        self, channel_groups: ChannelGroups, divisions: Sequence[EqualParts], copy_count: int
    ) -> None:
        channels = np.concatenate([part for each in divisions for part in each.parts])
        self._groups = channel_groups
        self._chosen = np.unique(channel_groups.group_of_each(channels))
        self._copy_count = copy_count
        self._rows: list[tuple[np.ndarray, float, float]] = []  # coefficients, lowest, highest
        self._outside: list[int] = []  # chosen groups whose channels nothing divides
        self._sizes = 0
        self._is_possible = True

    def choose(self, own: Sequence[int], at_least: int) -> None:
        """Require that so many of these groups are chosen."""
        inside = np.isin(own, self._chosen)
        if at_least == len(own):
            self._outside = np.array(own, int)[~inside].tolist()
            at_least -= len(self._outside)
        self._require(np.isin(self._chosen, own).astype(float), at_least, np.inf)

    def divide(self, division: EqualParts) -> None:
        """Require the sizes that the parts must have after the edit."""
        chosen = [self._count(part) for part in division.parts]
        sizes = [len(part) for part in division.parts]
        if self._copy_count < 0:
            for part, size in zip(chosen, sizes, strict=True):
                self._require(part, 0, size - 1)
        if len(set(sizes)) == 1:
            for part in chosen[1:]:
                self._require(part - chosen[0], 0, 0)
        else:
            self._divide_unevenly(chosen, sizes)

    def _divide_unevenly(self, chosen: Sequence[np.ndarray], sizes: Sequence[int]) -> None:
        """Require parts of one size, rounded up, and the rest in the last, as ``chunk`` does."""
        self._sizes += 1
        at = len(self._chosen) + self._sizes - 1
        for part, size in zip(chosen[:-1], sizes[:-1], strict=True):
            self._require(self._with_size(self._copy_count * part, at), -size, -size)
        last = self._copy_count * chosen[-1]
        self._require(last, 1 - sizes[-1], np.inf)
        self._require(self._with_size(last, at), 1 - len(sizes) - sizes[-1], -sizes[-1])

    def shuffle(self, shuffles: Sequence[Shuffle], paths: _Paths, each: int) -> None:
        """Require that channels keep their paths when ``each`` of every row are chosen."""
        before, after = paths.of_rows(0), paths.of_rows(self._copy_count * each)
        for (at, r), old in before.items():
            row, sizes = shuffles[at][0].parts[r], Counter(after[at, r])
            for path in dict.fromkeys((*old, *sizes)):
                own = row[[each == path for each in old]]
                wanted, rest = divmod(sizes[path] - len(own), self._copy_count)
                self._is_possible &= rest == 0 and wanted >= 0
                self._require(self._count(own), wanted, wanted)

    def solve(self) -> list[int] | None:
        """Return the chosen groups of the fewest filters; None if there is no such choice."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, rarely needed

        if not self._is_possible:
            return None
        count, total = len(self._chosen), len(self._chosen) + self._sizes
        rows = np.zeros((len(self._rows), total))
        for row, (coefficients, _, _) in zip(rows, self._rows, strict=True):
            row[: len(coefficients)] = coefficients
        upper = np.full(total, np.inf)
        upper[:count] = [not self._groups.why_fixed([g]) for g in self._chosen.tolist()]
        cost = np.zeros(total)
        cost[:count] = self._filters() + 1e-3 * np.arange(count) / count  # of equals, the first
        result = milp(
            cost,
            integrality=np.ones(total),
            bounds=Bounds(np.zeros(total), upper),
            constraints=LinearConstraint(
                rows, [low for _, low, _ in self._rows], [high for _, _, high in self._rows]
            ),
            options={"node_limit": MAX_NODES},
        )
        if result.x is None:
            return None
        chosen = self._chosen[result.x[:count] > 0.5].tolist()
        return sorted({*chosen, *self._outside})

    def _require(self, coefficients: np.ndarray, low: float, high: float) -> None:
        self._rows.append((coefficients, low, high))

    def _count(self, channels: np.ndarray) -> np.ndarray:
        """Return how many of these channels belong to each variable's group."""
        at = np.searchsorted(self._chosen, self._groups.group_of_each(channels))
        return np.bincount(at, minlength=len(self._chosen)).astype(float)

    def _with_size(self, coefficients: np.ndarray, at: int) -> np.ndarray:
        """Return the coefficients of a sum minus a size."""
        extended = np.zeros(at + 1)
        extended[: len(coefficients)] = coefficients
        extended[at] = -1
        return extended

    def _filters(self) -> np.ndarray:
        """Return how many filters of all layers belong to each variable's group."""
        owners = np.concatenate([*self._groups.filters.values()])
        found = self._groups.group_of_each(owners)
        return self._count(owners[np.isin(found, self._chosen)])


class _Paths:
    """The paths of channels through a series of shuffles.

    A path is the part that the channel is in behind each shuffle, as long as the part is a row of
    another shuffle.
    """

    def __init__(self, shuffles: Sequence[Shuffle]) -> None:
        self._shuffles = shuffles
        self._following = [
            [_shuffle_of(shuffles, part) for part in split.parts] for _, split in shuffles
        ]

    def of_rows(self, added: int) -> dict[tuple[int, int], list[tuple[int, ...]]]:
        """Return, by (shuffle, row), the path of each channel if each row has so many more."""
        known: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        for at, (rows, _) in enumerate(self._shuffles):
            for row in range(len(rows.parts)):
                self._find(at, row, added, known)
        return known

    def _find(
        self, at: int, row: int, added: int, known: dict[tuple[int, int], list[tuple[int, ...]]]
    ) -> list[tuple[int, ...]]:
        if (at, row) in known:
            return known[at, row]
        found = known[at, row] = []  # also where shuffles end in the order that they began with
        rows, split = self._shuffles[at]
        count, size = len(rows.parts), len(rows.parts[row]) + added
        length = -(-count * size // len(split.parts))  # as ``chunk`` does
        behind = [[] if to is None else self._find(*to, added, known) for to in self._following[at]]
        for position in range(row, count * size, count):
            part, place = divmod(position, length)
            found.append((part, *(behind[part][place] if place < len(behind[part]) else ())))
        return found


def _shuffle_of(shuffles: Sequence[Shuffle], part: np.ndarray) -> tuple[int, int] | None:
    """Return which shuffle has these channels as a row, and which row; None if there is none."""
    for at, (rows, _) in enumerate(shuffles):
        for r, row in enumerate(rows.parts):
            if np.array_equal(row, part):
                return at, r
    return None
