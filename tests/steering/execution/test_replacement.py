"""The data of a tensor is replaced, and restored by a rollback."""

from __future__ import annotations

import torch

from revacnn_lightning.steering.execution.replacement import replace_data
from revacnn_lightning.steering.execution.transaction import Transaction


def test_the_data_of_a_computed_tensor_is_replaced_without_a_warning() -> None:
    """As that of a pruned weight. A warning would be an error here."""
    weight = 2 * torch.ones(3, requires_grad=True)
    tx = Transaction()
    replace_data(tx, weight, torch.zeros(2), None)
    assert weight.tolist() == [0, 0]
    tx.rollback()
    assert weight.tolist() == [2, 2, 2]
