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


def test_the_hook_of_a_gradient_node_was_lost_by_a_change_that_was_rolled_back() -> None:
    """As of DistributedDataParallel: its next backward never ended."""
    parameter = torch.nn.Parameter(torch.ones(3))
    node = parameter.view_as(parameter).grad_fn.next_functions[0][0]
    fired: list[bool] = []
    node.register_hook(lambda *_: fired.append(True))
    with Transaction() as tx:
        replace_data(tx, parameter, torch.zeros(2), None)
        tx.rollback()
    parameter.sum().backward()
    assert fired
    parameter.grad = None
    with Transaction() as tx:
        replace_data(tx, parameter, torch.zeros(2), None)
    parameter.sum().backward()  # the node of the old size would raise
    assert parameter.grad.shape == (2,)
