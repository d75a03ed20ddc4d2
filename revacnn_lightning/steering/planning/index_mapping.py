"""Where the entries of a resized dimension go.

A first guess needs no model: what is removed is left out, and a copy stands right behind its
source. For the columns of consumers the guess is checked against the resized model: a second
trace shows which label *arrives* at each position, and the column that belonged to that label is
put there. Views that permute channels (channel shuffle) make the two differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.planning.plan import TensorEdit, order_of, runs_of
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = ["insert", "remove", "settle"]


def remove(tensor: str, dim: int, size: int, indices: np.ndarray) -> TensorEdit:
    """Leave these indices out."""
    kept = np.ones(size, bool)
    kept[indices] = False
    return TensorEdit(tensor, dim, size, runs_of(np.flatnonzero(kept)))


def insert(
    tensor: str, dim: int, size: int, indices: np.ndarray, pieces: int, count: int
) -> TensorEdit:
    """Put ``count`` new entries behind each piece of ``indices``.

    A run of neighbouring indices is one piece (the 49 columns of one filter behind a flatten), or
    several of length ``len(indices) / pieces`` each (two filters that are neighbours).
    """
    length = max(1, len(indices) // pieces)
    order: list[np.ndarray] = []
    new: list[np.ndarray] = []
    done = 0
    for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1):
        for start in range(0, len(run), length):
            piece = run[start : start + length]
            stop = int(piece[-1]) + 1
            order += [np.arange(done, stop), np.tile(piece, count)]
            new += [np.zeros(stop - done, bool), np.ones(count * len(piece), bool)]
            done = stop
    order.append(np.arange(done, size))
    new.append(np.zeros(size - done, bool))
    positions = np.flatnonzero(np.concatenate(new)).tolist()
    return TensorEdit(tensor, dim, size, runs_of(np.concatenate(order)), positions)


def settle(
    before: ChannelGroups, after: ChannelGroups, edits: Sequence[TensorEdit], strict: bool = False
) -> list[TensorEdit]:
    """The edits with every consumer's entries where their labels arrive in the resized model.

    ``after`` is the trace of the model resized by ``edits``. A consumer at which nothing arrives
    keeps the guess; so does one at which something without a label arrives (a layer that was left
    with a single filter has none), unless ``strict``, when no comparison of outputs will follow.

    Raises:
        EditFailed: a label arrives somewhere it never arrived before.
    """
    source, fresh = _origins(before, after, edits)
    settled = []
    for edit in edits:
        arrived = before.arriving(edit.tensor, edit.dim)
        arriving = after.arriving(edit.tensor, edit.dim)
        if arrived is None or arriving is None:
            settled.append(edit)
            continue
        new = fresh[arriving]
        if not strict and (source[arriving] < 0).any():
            settled.append(edit)
            continue
        order = _match(arrived, source[arriving], new, edit.tensor)
        settled.append(TensorEdit(edit.tensor, edit.dim, edit.size, runs_of(order),
                                  np.flatnonzero(new).tolist(), edit.fill))  # fmt: skip
    return settled


def _origins(
    before: ChannelGroups, after: ChannelGroups, edits: Sequence[TensorEdit]
) -> tuple[np.ndarray, np.ndarray]:
    """For each atom of ``after``: the atom of ``before`` it stands for, and whether it is new."""
    count = len(after.arrival)
    source, fresh = np.full(count, -1), np.zeros(count, bool)
    by_key = {(edit.tensor, edit.dim): edit for edit in edits}
    for site in after.sites:
        edit = by_key.get((site.name, site.dim))
        here = slice(site.start, site.stop)
        if edit is None:
            order, new = np.arange(site.size), np.zeros(site.size, bool)
        else:
            order, new = order_of(edit)
        source[here] = before.site(site.name, site.dim).start + order
        fresh[here] = new
    for (start, stop), (old, end) in zip(after.constants, before.constants, strict=False):
        if stop - start == end - old:
            source[start:stop] = np.arange(old, end)
    return source, fresh


def _match(arrived: np.ndarray, wanted: np.ndarray, new: np.ndarray, name: str) -> np.ndarray:
    """The old position of each arriving label: its k-th arrival takes the k-th old position.

    The arrivals of several new copies of one label go round its old positions again.
    """
    by_label = np.argsort(arrived, kind="stable")
    labels = arrived[by_label]
    first = np.searchsorted(labels, wanted, "left")
    copies = np.searchsorted(labels, wanted, "right") - first
    rank = _rank(2 * wanted + new)
    if (copies == 0).any() or (rank >= copies)[~new].any():
        raise EditFailedError(
            f"after the edit {name} would read channels it never read before: a size written into "
            "the model's code stayed, or a view permutes the channels in a way that only their "
            "old number allows"
        )
    return by_label[first + rank % copies]


def _rank(keys: np.ndarray) -> np.ndarray:
    """How many equal keys stand before each one."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, len(keys)))
    rank = np.empty(len(keys), int)
    rank[order] = np.arange(len(keys)) - np.repeat(starts, lengths)
    return rank
