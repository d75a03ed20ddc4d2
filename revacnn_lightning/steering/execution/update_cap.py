"""Caps the updates of young entries at the size of the updates of the mature entries.

The updates of the mature entries of a parameter shrink while a network learns:
the gradients of consecutive batches agree less and less. Those of a new filter agree, so that the
updates of a fresh parameter would be two to three times those of the mature entries, even with the
damping of `young_cohorts.early_update_damping`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["MAX_RATIO", "MatureEntryUpdateMeter", "cap_young_update_share"]

MAX_RATIO = 1.25  # of the mean absolute update of young entries to that of the mature entries


class MatureEntryUpdateMeter:
    """Measures how far an optimizer step moves the mature entries of a parameter.

    Args:
        is_mature: a mask of the entries that are mature and train, in the shape of the parameter.
    """

    def __init__(self, parameter: Tensor, is_mature: Tensor) -> None:
        self.parameter = parameter
        self._count = int(is_mature.sum())
        self._mature = is_mature.to(parameter.device)
        self._before = parameter.new_empty(0)

    def keep_values_before_step(self) -> None:
        """Keep the values before the optimizer changes them."""
        self._before = self.parameter.detach().clone()

    def mean_update(self) -> Tensor:
        """Return the mean absolute change of the last step, on the device.

        Entries without a gradient, such as those of dead filters, at most halve it: filters may be
        added because most others are dead. If no mature entry has a gradient, it is inf or nan.
        """
        assert self.parameter.grad is not None
        living = (self._mature & (self.parameter.grad != 0)).sum()
        change = (self.parameter.detach() - self._before).abs_().masked_fill_(~self._mature, 0)
        self._before = self.parameter.new_empty(0)
        return change.sum(dtype=_precise(change)) / (2 * living).clamp(max=self._count)


def cap_young_update_share(share: Any, young_change: Tensor, mean_mature_update: Tensor) -> Tensor:
    """Return the share of their full update that young entries get, at most ``share``.

    With it, they move at most `MAX_RATIO` times as far as the mature entries.

    It stays on the device: reading it would wait for the device.

    Args:
        young_change: the change of the young weights in a full step.
        mean_mature_update: what `MatureEntryUpdateMeter.mean_update` returned. With inf or
            nan there is no cap.
    """
    mean = young_change.abs().mean(dtype=_precise(young_change)) * share
    limit = MAX_RATIO * mean_mature_update
    return torch.where(mean > limit, limit / mean, 1.0) * share


def _precise(values: Tensor) -> torch.dtype:
    """Return the type for sums of many values of half precision."""
    return torch.promote_types(values.dtype, torch.float32)
