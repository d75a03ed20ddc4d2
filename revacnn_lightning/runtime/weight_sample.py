"""A sample of a layer's coefficients as they were once, which is carried through edits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.steering.planning.plan import EditPlan, TensorEdit, old_indices_and_new_mask
from revacnn_lightning.telemetry.unit_layers import (
    UnitLayer,
    filter_count,
    group_count,
    is_transposed,
)

__all__ = ["PER_FILTER", "WeightSample"]

PER_FILTER = 64  # coefficients of a filter, at most


@dataclass(frozen=True)
class WeightSample:
    """At most 64 coefficients of each filter, evenly spread over what the filter reads.

    Unlike a projection, a sample can be carried through an edit: it is known which of its
    coefficients an edit removes.

    Attributes:
        shape: the shape of the weight.
        places: index of each coefficient in the flattened weight, (n,).
        values: what they were, float32 (n,).
        sampled_share: the share of a filter's coefficients that the sample holds.
        new_entries: for each dimension of the weight, which of its entries are new and not yet in
            the sample, bool; () if none is.
    """

    shape: tuple[int, ...]
    places: np.ndarray
    values: np.ndarray
    sampled_share: float
    new_entries: tuple[np.ndarray, ...] = ()

    @classmethod
    def of(cls, weight: Tensor, conv: UnitLayer) -> WeightSample:
        """Return a sample of a layer as it is now."""
        places = _spread(tuple(weight.shape), conv)
        size = max(1, weight.numel() // max(1, filter_count(conv)))
        return cls(
            tuple(weight.shape), _compact(places, weight.shape), _read(weight, places),
            min(1.0, PER_FILTER / size),
        )  # fmt: skip

    def relative_change(self, weight: Tensor, conv: UnitLayer) -> float:
        """Return ‖w - w₀‖ / ‖w₀‖ of the median filter, 0 or more.

        NaN if the layer has another shape now, or if all filters of the sample were zero.
        """
        if tuple(weight.shape) != self.shape:
            return math.nan
        filters, count = _filters_of(self.places, self.shape, conv), filter_count(conv)
        difference = _read(weight, self.places) - self.values
        length, distance = (
            np.sqrt(np.bincount(filters, values.astype(np.float64) ** 2, count))
            for values in (self.values, difference)
        )
        known = length > 0
        return float(np.median(distance[known] / length[known])) if known.any() else math.nan

    def after_edit(self, plan: EditPlan, tensor_name: str) -> WeightSample:
        """Return what an edit leaves of the sample; `with_new_entries` adds what is new.

        What the edit draws again, sets to zero or divides among copies is new, too.

        Args:
            plan: the edit, as it was performed.
            tensor_name: the name of the layer's weight in it.
        """
        shape, indices = list(self.shape), list(np.unravel_index(self.places, self.shape))
        new = [each.copy() for each in self.new_entries] or [np.zeros(size, bool) for size in shape]
        for value in plan.values:
            if value.tensor == tensor_name and value.action in ("fresh", "zero"):
                new[value.dim][value.indices] = True
        kept = ~_is_in_any(new, indices)
        for edit in plan.tensors:
            if edit.tensor == tensor_name:
                order, is_new = _order_of(edit)
                position = np.full(edit.size, -1)
                position[order[~is_new]] = np.flatnonzero(~is_new)
                indices[edit.dim] = position[indices[edit.dim]]
                kept &= indices[edit.dim] >= 0
                new[edit.dim], shape[edit.dim] = new[edit.dim][order] | is_new, len(order)
        places = np.ravel_multi_index([index[kept] for index in indices], shape)
        pending = tuple(new) if any(mask.any() for mask in new) else ()
        return WeightSample(
            tuple(shape), _compact(places, shape), self.values[kept], self.sampled_share, pending
        )

    def with_new_entries(self, weight: Tensor, conv: UnitLayer) -> WeightSample:
        """Return the sample with what is new in an edited layer, which starts as it is now.

        Of a filter that reads more than before, fewer of the old coefficients are kept, so that
        the sample remains even.
        """
        if not self.new_entries or tuple(weight.shape) != self.shape:
            return self
        fresh, generator = WeightSample.of(weight, conv), np.random.default_rng(0)
        rate = min(self.sampled_share, fresh.sampled_share)
        kept = generator.random(len(self.places)) < rate / self.sampled_share
        known = np.unique(_filters_of(self.places[kept], self.shape, conv))
        added = generator.random(len(fresh.places)) < rate / fresh.sampled_share
        added |= ~np.isin(_filters_of(fresh.places, self.shape, conv), known)
        added &= _is_in_any(self.new_entries, np.unravel_index(fresh.places, self.shape))
        return replace(
            fresh,
            places=np.concatenate([self.places[kept], fresh.places[added]]),
            values=np.concatenate([self.values[kept], fresh.values[added]]),
            sampled_share=rate,
        )


def _spread(shape: tuple[int, ...], conv: UnitLayer) -> np.ndarray:
    """Return the places of at most 64 coefficients of each filter, spread evenly, int64 (n,).

    They are the same in every process: one at random of each of 64 ranges of a filter's row.
    """
    count = filter_count(conv)
    size = math.prod(shape) // max(1, count)
    n = min(PER_FILTER, size)
    bounds = np.arange(n + 1) * size // max(1, n)
    chosen = np.random.default_rng(size).random((count, n))
    columns = bounds[:-1] + (chosen * np.diff(bounds)).astype(np.int64)
    filters = np.arange(count)[:, None]
    if not is_transposed(conv):
        return (filters * size + columns).ravel()
    width, kernel = shape[1], math.prod(shape[2:])
    inputs = filters // width * (shape[0] // group_count(conv)) + columns // kernel
    return ((inputs * width + filters % width) * kernel + columns % kernel).ravel()


def _filters_of(places: np.ndarray, shape: tuple[int, ...], conv: UnitLayer) -> np.ndarray:
    """Return the filter of each place, int64."""
    indices = np.unravel_index(places, shape)
    if not is_transposed(conv):
        return indices[0]
    return indices[0] // (shape[0] // group_count(conv)) * shape[1] + indices[1]


def _order_of(edit: TensorEdit) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of an edit's entries, and which of them do not survive as they are."""
    order, is_new = old_indices_and_new_mask(edit)
    if edit.fill == "share":  # the source has only a share of its value now
        is_new = is_new | np.isin(order, order[is_new])
    return order, is_new


def _is_in_any(masks: Sequence[np.ndarray], indices: Sequence[np.ndarray]) -> np.ndarray:
    """Return at which places one of the masks of the dimensions holds, bool."""
    found: np.ndarray = np.logical_or.reduce(
        [mask[index] for mask, index in zip(masks, indices, strict=True)]
    )
    return found


def _compact(places: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return places in as few bytes as the weight allows."""
    return places.astype(np.min_scalar_type(math.prod(shape)))


def _read(weight: Tensor, places: np.ndarray) -> np.ndarray:
    """Return the coefficients at some places, float32."""
    index = torch.from_numpy(places.astype(np.int64)).to(weight.device)
    return weight.detach().flatten()[index].float().cpu().numpy()
