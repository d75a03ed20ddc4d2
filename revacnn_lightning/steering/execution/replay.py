"""Replays the plans of a journal on an unedited model and on the copies of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.execution.copy_edits import perform_on_copies
from revacnn_lightning.steering.execution.executor import UndoRecord, perform
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.holders.model_copy import ModelCopy
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["replay"]


def replay(
    model: nn.Module, plans: Sequence[EditPlan], copies: Sequence[ModelCopy] = ()
) -> list[UndoRecord]:
    """Perform plans on a fresh, unedited model, whose weights are loaded afterwards.

    Args:
        copies: copies of the model that are not registered in it, such as a callback's average.

    Raises:
        SteeringError: a plan does not fit the model, which is unchanged.
    """
    records = []
    with Transaction() as tx:
        for number, plan in enumerate(plans, 1):
            try:
                record = perform(tx, model, plan, [], _generator(number))
                perform_on_copies(tx, model, plan, copies, record, _generator(number))
            except (AttributeError, IndexError, RuntimeError) as error:
                raise SteeringError(
                    f"edit {number} of the journal ({plan.title}) does not fit this model: {error}"
                ) from error
            records.append(record)
    return records


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
