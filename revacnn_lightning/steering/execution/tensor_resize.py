"""Resizing one dimension of a tensor, and reverting that."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.steering.planning.plan import TensorEdit, old_indices_and_new_mask

__all__ = ["Resize", "in_memory_format_of"]

# Up to this many runs, concatenating slices (block copies) is faster than gathering indices.
FEW_RUNS = 32
# By how much, at most, a share of a divided entry exceeds an equal one.
SPLIT_NOISE = 0.1


class Resize:
    """A `TensorEdit` prepared for application to a tensor, its gradient and its optimizer state.

    Attributes:
        dim: the resized dimension.
        size: its size before.
        order: (size after,): the old index that each position is copied or derived from.
        is_new: (size after,): whether a position is a new entry rather than a surviving one.
        new_positions: the positions of new entries.
    """

    def __init__(self, edit: TensorEdit) -> None:
        self.edit = edit
        self.dim, self.size = edit.dim, edit.size
        self.order, self.is_new = old_indices_and_new_mask(edit)
        kept = self.order[~self.is_new]
        removed = np.ones(self.size, bool)
        removed[kept] = False
        self.new_positions = torch.from_numpy(np.flatnonzero(self.is_new))
        self._kept_positions = torch.from_numpy(np.flatnonzero(~self.is_new))
        self._kept = torch.from_numpy(kept)  # the old index of each survivor, in the new order
        self._removed = torch.from_numpy(np.flatnonzero(removed))  # old indices without survivor

    def matches(self, tensor: Tensor, shape: torch.Size) -> bool:
        """Return whether a tensor has this shape; sizes of other dimensions may also be 1."""
        return (
            tensor.ndim == len(shape)
            and tensor.shape[self.dim] == self.size
            and all(a in (b, 1) for a, b in zip(tensor.shape, shape, strict=True))
        )

    def apply(self, tensor: Tensor) -> Tensor:
        """Return the resized tensor; new entries are copies of the old index in ``order``."""
        runs = self.edit.runs
        if len(runs) <= FEW_RUNS:
            pieces = [tensor.narrow(self.dim, a, b - a) for a, b in runs]
            resized = torch.cat(pieces, self.dim) if len(pieces) != 1 else pieces[0].clone()
        else:
            index = torch.from_numpy(self.order).to(tensor.device)
            resized = tensor.index_select(self.dim, index)
        return in_memory_format_of(tensor, resized)

    def apply_and_fill(self, tensor: Tensor, value: float | Tensor) -> Tensor:
        """Return the resized tensor with new entries set to ``value``.

        A tensor ``value`` has the resized shape; its entries at the new positions are used.
        """
        resized = self.apply(tensor)
        if len(self.new_positions):
            new = self.new_positions.to(resized.device)
            if isinstance(value, Tensor):
                values = value.index_select(self.dim, new).to(resized.dtype)
                resized.index_copy_(self.dim, new, values)
            else:
                resized.index_fill_(self.dim, new, value)
        return resized

    def apply_and_insert(self, tensor: Tensor, entries: Tensor) -> Tensor:
        """Return the resized tensor with these new entries, which `new_entries` returned."""
        resized = self.apply(tensor)
        new = self.new_positions.to(resized.device)
        return resized.index_copy_(self.dim, new, entries.to(resized))

    def new_entries(self, tensor: Tensor) -> Tensor:
        """Return the new entries of a resized tensor."""
        return tensor.index_select(self.dim, self.new_positions.to(tensor.device))

    def removed_entries(self, tensor: Tensor) -> Tensor:
        """Return the entries of the old tensor that do not survive."""
        return tensor.index_select(self.dim, self._removed.to(tensor.device))

    def revert(self, tensor: Tensor, removed: Tensor | float) -> Tensor:
        """Return a tensor of the old size from a resized one.

        Survivors keep their present values; ``removed`` fills the entries that did not survive.
        """
        shape = list(tensor.shape)
        shape[self.dim] = self.size
        reverted = tensor.new_empty(shape)
        device = tensor.device
        survivors = tensor.index_select(self.dim, self._kept_positions.to(device))
        reverted.index_copy_(self.dim, self._kept.to(device), survivors)
        if len(self._removed):
            at = self._removed.to(device)
            if isinstance(removed, Tensor):
                reverted.index_copy_(self.dim, at, removed.to(reverted))
            else:
                reverted.index_fill_(self.dim, at, removed)
        return in_memory_format_of(tensor, reverted)

    def apply_keeping_sums(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """Return the resized tensor, in which an entry and its copies sum to what it was.

        Every coefficient is divided a little differently (Net2Wider, Chen et al. 2016): copies
        whose outgoing weights are equal, or proportional, get proportional gradients, and an
        optimizer that normalizes them, such as Adam, would keep the copies equal forever.
        """
        resized = self.apply(tensor)
        for source in np.unique(self.order[self.is_new]):
            at = np.flatnonzero(self.order == source).tolist()
            rest = tensor.select(self.dim, source).clone()
            for k, position in enumerate(at[:-1]):
                noise = torch.rand(rest.shape, generator=generator, dtype=torch.float64)
                share = (1 + SPLIT_NOISE * noise.to(tensor.device)) / (len(at) - k)
                piece = (rest.double() * share).to(rest)  # at least half of two: the rest is exact
                resized.select(self.dim, position).copy_(piece)
                rest -= piece
            resized.select(self.dim, at[-1]).copy_(rest)
        return resized


def in_memory_format_of(old: Tensor, new: Tensor) -> Tensor:
    """Return ``new`` in the memory format of ``old``."""
    if (
        new.ndim == 4
        and old.is_contiguous(memory_format=torch.channels_last)
        and not old.is_contiguous()
    ):
        return new.contiguous(memory_format=torch.channels_last)
    return new.contiguous()
