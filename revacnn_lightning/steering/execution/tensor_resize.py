"""Re-ordering, shortening and lengthening one dimension of one tensor, and back again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.steering.planning.plan import TensorEdit, order_of

__all__ = ["Resize", "in_layout_of"]

# Up to this many runs, concatenating slices (block copies) beats gathering single indices.
FEW_RUNS = 32


class Resize:
    """A `TensorEdit`, ready to be done to the tensor itself and to all that has its shape."""

    def __init__(self, edit: TensorEdit) -> None:
        self.edit = edit
        self.dim, self.size = edit.dim, edit.size
        order, new = order_of(edit)
        self.order, self.is_new = order, new
        self.new = torch.from_numpy(np.flatnonzero(new))
        kept = order[~new]
        left = np.ones(self.size, bool)
        left[kept] = False
        self.kept = torch.from_numpy(kept)  # old index of each survivor, in its new order
        self.kept_at = torch.from_numpy(np.flatnonzero(~new))
        self.left = torch.from_numpy(np.flatnonzero(left))  # old indices that go

    def fits(self, tensor: Tensor, shape: torch.Size) -> bool:
        """Whether a tensor has this shape along the resized dimension, and this or 1 elsewhere."""
        return (
            tensor.ndim == len(shape)
            and tensor.shape[self.dim] == self.size
            and all(a in (b, 1) for a, b in zip(tensor.shape, shape, strict=True))
        )

    def take(self, tensor: Tensor) -> Tensor:
        """The resized tensor; new entries hold what stands at the index they were copied from."""
        runs = self.edit.runs
        if len(runs) <= FEW_RUNS:
            pieces = [tensor.narrow(self.dim, a, b - a) for a, b in runs]
            made = torch.cat(pieces, self.dim) if len(pieces) != 1 else pieces[0].clone()
        else:
            index = torch.from_numpy(self.order).to(tensor.device)
            made = tensor.index_select(self.dim, index)
        return in_layout_of(tensor, made)

    def filled(self, tensor: Tensor, value: float | Tensor) -> Tensor:
        """The resized tensor with ``value`` (a number, or a tensor to pick from) as new entries."""
        made = self.take(tensor)
        if len(self.new):
            new = self.new.to(made.device)
            if isinstance(value, Tensor):
                made.index_copy_(self.dim, new, value.index_select(self.dim, new).to(made.dtype))
            else:
                made.index_fill_(self.dim, new, value)
        return made

    def leaving(self, tensor: Tensor) -> Tensor:
        """The entries of the old tensor that have no survivor."""
        return tensor.index_select(self.dim, self.left.to(tensor.device))

    def back(self, tensor: Tensor, left: Tensor | float) -> Tensor:
        """The old tensor again: survivors as they are now, and what had left as it was then."""
        shape = list(tensor.shape)
        shape[self.dim] = self.size
        made = tensor.new_empty(shape)
        device = tensor.device
        survivors = tensor.index_select(self.dim, self.kept_at.to(device))
        made.index_copy_(self.dim, self.kept.to(device), survivors)
        if len(self.left):
            at = self.left.to(device)
            if isinstance(left, Tensor):
                made.index_copy_(self.dim, at, left.to(made))
            else:
                made.index_fill_(self.dim, at, left)
        return in_layout_of(tensor, made)

    def shares(self, like: Tensor) -> Tensor:
        """Factors along the new dimension that share an entry out among it and its copies.

        They add up to one for each entry and are not quite equal: twins with equal outgoing
        weights get equal gradients and would stay twins.
        """
        factor = np.ones(len(self.order))
        for source in np.unique(self.order[self.is_new]):
            at = np.flatnonzero(self.order == source)
            n = len(at)
            factor[at] = (1 + 0.2 * (np.arange(n) / (n - 1) - 0.5)) / n if n > 1 else 1.0
        shape = [1] * like.ndim
        shape[self.dim] = -1
        return torch.from_numpy(factor).to(like).view(shape)


def in_layout_of(old: Tensor, new: Tensor) -> Tensor:
    """The new tensor in the memory format of the old one."""
    if (
        new.ndim == 4
        and old.is_contiguous(memory_format=torch.channels_last)
        and not old.is_contiguous()
    ):
        return new.contiguous(memory_format=torch.channels_last)
    return new.contiguous()
