"""Adapts the gain of a weight norm, so that an edit of the direction keeps the weight.

Every entry of a weight w = g v / ‖v‖ (Salimans & Kingma 2016) changes when columns of v are removed
or changed, because ‖v‖ changes. Multiplying g by the new norm over the old keeps every remaining
entry of w as it was, up to the rounding of one multiplication and one division. The optimizer state
of g stays as it is. New filters start with g = ‖v‖, as those of a fresh layer do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.execution.replacement import ChangeRecord, replace_data
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor

__all__ = ["initialize_gain", "rescale_gain"]

# Sums of the same squares in another order differ by less than this, relatively.
SAME_NORM = 1e-13


def rescale_gain(
    tx: Transaction,
    model: nn.Module,
    gain_name: str,
    direction_before: Tensor,
    direction_after: Tensor,
    revert_record: ChangeRecord | None = None,
) -> ChangeRecord:
    """Adapt a gain to a change of its direction within the norms.

    Args:
        gain_name: the name of the gain.
        direction_before: the direction before the change.
        direction_after: the direction after it; the number of norms is the same.
        revert_record: what an earlier call returned, if this one reverts it: entries that were not
            trained since are exactly the old ones.

    Returns:
        What reverting this needs.

    Raises:
        EditFailedError: nothing but zeros remains of a direction, which then has no norm.
    """
    parameter = find_owner_and_tensor(model, gain_name)[1]
    old = parameter.detach()
    if bool((_norms(direction_after, old) == 0).any()) and not bool(
        (_norms(direction_before, old) == 0).any()
    ):
        raise EditFailedError(
            f"nothing but zeros would remain of a filter that {gain_name} scales, so that its "
            "weight norm would be undefined; the edit was rolled back"
        )
    rescaled = _rescaled(old, direction_before, direction_after)
    if revert_record is not None and "gain before" in revert_record:
        known = old == revert_record["gain after"].to(old)
        rescaled = torch.where(known, revert_record["gain before"].to(old), rescaled)
    replace_data(tx, parameter, rescaled, parameter.grad)
    return {"gain before": old.clone(), "gain after": rescaled.clone()}


def initialize_gain(
    tx: Transaction,
    model: nn.Module,
    gain_name: str,
    direction: Tensor,
    dim: int,
    new_indices: Sequence[int],
) -> None:
    """Set the entries of a gain at ``new_indices`` of ``dim`` to the norms of the direction."""
    parameter = find_owner_and_tensor(model, gain_name)[1]
    old = parameter.detach()
    at = torch.tensor(new_indices, device=old.device)
    reduced = [d for d in range(direction.ndim) if d != dim]
    norms = torch.linalg.vector_norm(direction, dim=reduced, keepdim=True).to(old)
    initialized = old.index_copy(dim, at, norms.index_select(dim, at))
    replace_data(tx, parameter, initialized, parameter.grad)


def _rescaled(gain: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return gain · ‖after‖ / ‖before‖, exactly the gain where the norms are the same."""
    ratio = _norms(after, gain) / _norms(before, gain)
    is_same = ((ratio - 1).abs() < SAME_NORM) | ~ratio.isfinite() | (ratio == 0)
    return torch.where(is_same, gain, (gain.double() * ratio).to(gain))


def _norms(direction: Tensor, gain: Tensor) -> Tensor:
    """Return the norms of a direction in double precision, in the shape of its gain."""
    if gain.ndim == 0:
        return torch.linalg.vector_norm(direction.double())
    reduced = [d for d, size in enumerate(gain.shape) if size == 1]
    return torch.linalg.vector_norm(direction.double(), dim=reduced, keepdim=True)
