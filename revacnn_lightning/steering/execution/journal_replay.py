"""Performs the plans of a journal again, on a model whose weights are loaded afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.execution.copy_edits import perform_on_copies
from revacnn_lightning.steering.execution.executor import UndoRecord, perform
from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.holders.model_copy import ModelPartCopy
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["replay_plans"]


def replay_plans(
    tx: Transaction,
    model: nn.Module,
    plans: Sequence[EditPlan],
    optimizers: Sequence[Optimizer] = (),
    copies: Sequence[ModelPartCopy] = (),
    first_number: int = 1,
) -> list[UndoRecord]:
    """Perform plans on a model whose weights are loaded afterwards, and on its copies.

    Args:
        copies: copies of the model that are not registered in it, such as a callback's average.
        first_number: the number of the first plan in the journal.

    Raises:
        SteeringError: a plan does not fit the model. The rollback is up to ``tx``.
    """
    records = []
    for number, plan in enumerate(plans, first_number):
        try:
            record = perform(tx, model, plan, optimizers, Initializer.seeded(number))
            perform_on_copies(tx, model, plan, copies, record, Initializer.seeded(number))
        except (AttributeError, IndexError, RuntimeError) as error:
            raise SteeringError(
                f"edit {number} of the journal ({plan.title}) does not fit this model: {error}"
            ) from error
        records.append(record)
    return records
