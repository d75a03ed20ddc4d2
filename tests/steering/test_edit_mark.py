"""The mark of an edited model, and the key that it adds to weights."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.steering.edit_mark import (
    MARK,
    MARK_KEY,
    is_marked_edited,
    mark_state_dict,
    unmark_state_dict,
    update_edit_mark,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def marked() -> tuple[Net, dict[str, Tensor]]:
    model = Net()
    update_edit_mark(model, is_edited=True)
    weights = model.state_dict()
    mark_state_dict(model, weights)
    return model, weights


def test_a_marked_model_and_its_copies_accept_the_key():
    model, weights = marked()
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert is_marked_edited(each)
        each.load_state_dict(weights)


def test_another_model_reports_the_key():
    _, weights = marked()
    with pytest.raises(RuntimeError, match=MARK_KEY):
        Net().load_state_dict(weights)
    unmark_state_dict(weights)
    Net().load_state_dict(weights)


def test_a_mark_changes_neither_the_modules_nor_the_weights_of_a_model():
    model, plain = Net(), Net()
    update_edit_mark(model, is_edited=True)
    assert list(dict(model.named_modules())) == list(dict(plain.named_modules()))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert vars(model).keys() == vars(plain).keys()
    update_edit_mark(model, is_edited=False)
    assert MARK not in model._modules


class RunsItsTable(Net):
    def forward(self, x: Tensor) -> Tensor:
        for module in self._modules.values():
            x = module(x)
        return x


@pytest.mark.parametrize("make", [RunsItsTable, lambda: nn.Sequential(nn.Conv2d(1, 2, 3))])
def test_a_model_that_runs_all_of_its_table_is_not_marked(make):
    model = make()
    update_edit_mark(model, is_edited=True)
    assert not is_marked_edited(model)
    assert model(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 2, 2)
    weights = model.state_dict()
    mark_state_dict(model, weights)
    assert MARK_KEY not in weights
