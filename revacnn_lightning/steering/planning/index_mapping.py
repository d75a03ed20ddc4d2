"""Where the entries of a resized dimension go.

The first guess needs no model: removed entries are left out, and a copy goes right after its
source. For the columns of consumers the guess is checked against the resized model: a second trace
shows which channel *arrives* at each position, and the column that belonged to that channel is put
there. The two differ where views permute channels (channel shuffle).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.planning.plan import (
    TensorEdit,
    old_indices_and_new_mask,
    split_into_runs,
)
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups

__all__ = [
    "correct_consumer_columns",
    "duplication_edit",
    "piece_duplication_edit",
    "removal_edit",
    "split_into_adjacent_pieces",
]


def removal_edit(tensor_name: str, dim: int, size: int, indices: np.ndarray) -> TensorEdit:
    """Return the edit that removes these indices of one dimension of a tensor."""
    kept = np.ones(size, bool)
    kept[indices] = False
    return TensorEdit(tensor_name, dim, size, split_into_runs(np.flatnonzero(kept)))


def duplication_edit(
    tensor_name: str, dim: int, size: int, indices: np.ndarray, num_pieces: int, copy_count: int
) -> TensorEdit:
    """Return the edit that inserts ``copy_count`` copies of each piece of indices after it.

    The pieces are those of `split_into_adjacent_pieces`.
    """
    return piece_duplication_edit(
        tensor_name, dim, size, split_into_adjacent_pieces(indices, num_pieces), copy_count
    )


def split_into_adjacent_pieces(indices: np.ndarray, num_pieces: int) -> list[np.ndarray]:
    """Split sorted indices into pieces of adjacent indices that belong to one filter each.

    A piece has ``len(indices) / num_pieces`` indices, such as the 49 columns of a filter after a
    flatten. It is shorter where the next index is not adjacent.
    """
    length = max(1, len(indices) // num_pieces)
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return [run[i : i + length] for run in runs for i in range(0, len(run), length)]


def piece_duplication_edit(
    tensor_name: str, dim: int, size: int, pieces: Sequence[np.ndarray], copy_count: int
) -> TensorEdit:
    """Return the edit that inserts ``copy_count`` copies of each piece after it."""
    order: list[np.ndarray] = []
    new: list[np.ndarray] = []
    done = 0
    for piece in sorted(pieces, key=lambda each: int(each[-1])):
        stop = int(piece[-1]) + 1
        order += [np.arange(done, stop), np.tile(piece, copy_count)]
        new += [np.zeros(stop - done, bool), np.ones(copy_count * len(piece), bool)]
        done = stop
    order.append(np.arange(done, size))
    new.append(np.zeros(size - done, bool))
    positions = np.flatnonzero(np.concatenate(new)).tolist()
    return TensorEdit(tensor_name, dim, size, split_into_runs(np.concatenate(order)), positions)


def correct_consumer_columns(
    traced_before: ChannelGroups,
    traced_after: ChannelGroups,
    edits: Sequence[TensorEdit],
    strict: bool = False,
) -> list[TensorEdit]:
    """Return the edits with each column of a consumer where the channel that it reads arrives.

    The guess is kept for a consumer at which no channel arrives.

    Args:
        traced_before: the trace of the model before the edits.
        traced_after: the trace of the model resized by ``edits``.
        edits: the edits, with the columns of consumers where the guess puts them.
        strict: whether the guess is not kept where something without labels arrives, such as the
            output of a layer reduced to a single filter. It is for edits whose output is not
            compared afterwards.

    Raises:
        EditFailedError: a channel arrives at a consumer that did not read it before.
    """
    source, is_new = _origins(traced_before, traced_after, edits)
    realigned = []
    for edit in edits:
        old_arrivals = traced_before.arriving_channels(edit.tensor, edit.dim)
        arrivals = traced_after.arriving_channels(edit.tensor, edit.dim)
        if (
            old_arrivals is None
            or arrivals is None
            or (not strict and (source[arrivals] < 0).any())
        ):
            realigned.append(edit)
            continue
        new = is_new[arrivals]
        order = _match(old_arrivals, source[arrivals], new, edit.tensor)
        realigned.append(TensorEdit(edit.tensor, edit.dim, edit.size, split_into_runs(order),
                                    np.flatnonzero(new).tolist(), edit.fill, edit.gain,
                                    edit.entry_gain))  # fmt: skip
    return realigned


def _origins(
    traced_before: ChannelGroups, traced_after: ChannelGroups, edits: Sequence[TensorEdit]
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each channel after the edits, its origin before and whether it is new."""
    count = len(traced_after.arrival)
    source, is_new = np.full(count, -1), np.zeros(count, bool)
    by_dimension = {(edit.tensor, edit.dim): edit for edit in edits}
    for dimension in traced_after.dimensions:
        edit = by_dimension.get((dimension.tensor, dimension.dim))
        here = slice(dimension.start, dimension.stop)
        if edit is None:
            order, new = np.arange(dimension.size), np.zeros(dimension.size, bool)
        else:
            order, new = old_indices_and_new_mask(edit)
        start = traced_before.start_of(dimension.tensor, dimension.dim)
        if start is not None:  # before, the dimension had a single entry
            source[here] = start + order
        is_new[here] = new
    for (start, stop), (old, end) in zip(
        traced_after.constants, traced_before.constants, strict=False
    ):
        if stop - start == end - old:
            source[start:stop] = np.arange(old, end)
    return source, is_new


def _match(arrived: np.ndarray, wanted: np.ndarray, new: np.ndarray, name: str) -> np.ndarray:
    """Return the old position of each arriving channel: its k-th arrival gets the k-th position.

    The arrivals of several new copies of one channel cycle through its old positions.
    """
    by_channel = np.argsort(arrived, kind="stable")
    channels = arrived[by_channel]
    first = np.searchsorted(channels, wanted, "left")
    copies = np.searchsorted(channels, wanted, "right") - first
    rank = _rank(2 * wanted + new)
    if (copies == 0).any() or (rank >= copies)[~new].any():
        raise EditFailedError(
            f"after the edit {name} would read channels that it did not read before: a size in the "
            "model's code did not change along, or a view permutes the channels in a way that only "
            "their old number allows; the edit was rolled back"
        )
    return by_channel[first + rank % copies]


def _rank(keys: np.ndarray) -> np.ndarray:
    """Return how many equal keys precede each key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, len(keys)))
    rank = np.empty(len(keys), int)
    rank[order] = np.arange(len(keys)) - np.repeat(starts, lengths)
    return rank
