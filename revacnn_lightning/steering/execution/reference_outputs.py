"""The outputs that verification compares with: forwards of the temporarily changed model.

Every change is rolled back before returning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.replacement import gradient_of, replace_data
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.value_edits import apply_value_edit
from revacnn_lightning.steering.execution.weight_gain import rescale_gain
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    TensorEdit,
    ValueEdit,
    old_indices_and_new_mask,
)
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe, evaluate_first_forward

__all__ = [
    "disconnect_removed_filters",
    "expected_output",
    "output_with_perturbed_weights",
    "output_with_values",
]


def expected_output(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    probe: ForwardProbe,
    output: list[Tensor],
    initializer: Initializer,
    *,
    double: bool = False,
) -> list[Tensor]:
    """Return the output that the resized model must give, computed before ``plan`` is performed.

    Added filters leave the ``output`` unchanged. Removing filters gives the output of the present
    model with their outgoing columns set to zero (and the plan's value edits done).
    """
    if not plan.values and not _silenced(plan):
        return output
    start = tx.size
    disconnect_removed_filters(tx, model, plan, initializer)
    expected = evaluate_first_forward(model, probe, double=double)
    tx.rollback(keep=start)
    return expected


def _silenced(plan: EditPlan) -> list[TensorEdit]:
    """Return the edits that remove columns which read channels."""
    return [edit for edit in plan.tensors if not edit.new and edit.fill == "zero"]


def disconnect_removed_filters(
    tx: Transaction, model: nn.Module, plan: EditPlan, initializer: Initializer
) -> None:
    """Set the outgoing columns of the filters that a plan removes to zero, without resizing.

    The plan's value edits are done, too. Then the model computes what it will after the removal.
    The rollback is up to ``tx``.
    """
    for value in plan.values:
        apply_value_edit(tx, model, value, [], initializer)
    for edit in _silenced(plan):
        _, tensor = find_owner_and_tensor(model, edit.tensor)
        kept = np.zeros(edit.size, bool)
        kept[old_indices_and_new_mask(edit)[0]] = True
        removed = torch.from_numpy(np.flatnonzero(~kept)).to(tensor.device)
        zeroed = tensor.detach().clone().index_fill_(edit.dim, removed, 0.0)
        before = tensor.detach()
        replace_data(tx, tensor, zeroed, gradient_of(tensor))
        if edit.gain:
            rescale_gain(tx, model, edit.gain, before, zeroed)


def output_with_values(
    tx: Transaction,
    model: nn.Module,
    values: Sequence[ValueEdit],
    probe: ForwardProbe,
    *,
    double: bool = False,
) -> list[Tensor]:
    """Return the output with these changes of values."""
    start = tx.size
    for value in values:
        apply_value_edit(tx, model, value, [], Initializer(torch.Generator()))
    output = evaluate_first_forward(model, probe, double=double)
    tx.rollback(keep=start)
    return output


def output_with_perturbed_weights(
    tx: Transaction, model: nn.Module, probe: ForwardProbe, rounding_unit: float
) -> list[Tensor]:
    """Return the output with every weight multiplied by 1 + ``rounding_unit`` · N(0, 1)."""
    generator = torch.Generator().manual_seed(0)
    start = tx.size
    for parameter in model.parameters():
        if parameter.is_floating_point():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            perturbed = parameter.detach() * (1 + rounding_unit * noise).to(parameter)
            replace_data(tx, parameter, perturbed, parameter.grad)
    output = evaluate_first_forward(model, probe)
    tx.rollback(keep=start)
    return output
