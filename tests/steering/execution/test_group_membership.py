"""Every parameter stays in its groups; every new one joins exactly one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from revacnn_lightning import EditFailedError, InsertLayer
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.execution.group_membership import ParamGroupMembershipCheck
from tests.steering.nets import Plain, build, checksum, probe_of


def membership() -> tuple[nn.Module, torch.optim.Optimizer, ParamGroupMembershipCheck]:
    model = build(Plain)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return model, optimizer, ParamGroupMembershipCheck(model, [optimizer])


def test_a_new_parameter_in_no_group_fails() -> None:
    model, optimizer, groups = membership()
    groups.check()
    model.extra = nn.Linear(1, 1, bias=False)
    with pytest.raises(
        EditFailedError, match=r"extra\.weight would be in no parameter group of SGD"
    ):
        groups.check()
    groups.check(new_are_trained=False)
    optimizer.param_groups[0]["params"].append(model.extra.weight)
    groups.check()
    optimizer.param_groups[0]["params"].append(model.extra.weight)
    with pytest.raises(EditFailedError):
        groups.check(new_are_trained=False)


def test_a_new_parameter_of_a_network_that_no_optimizer_trains_needs_no_group() -> None:
    model = nn.ModuleDict({"online": nn.Conv2d(1, 2, 3), "target": nn.Conv2d(1, 2, 3)})
    groups = ParamGroupMembershipCheck(model, [torch.optim.SGD(model["online"].parameters(), 0.1)])
    model["target"].block = nn.Conv2d(2, 2, 1)
    groups.check()
    model["online"].block = nn.Conv2d(2, 2, 1)
    with pytest.raises(EditFailedError, match=r"edit online\.block\.weight, online\.block\.bias "):
        groups.check()


def test_a_lost_parameter_fails() -> None:
    _, optimizer, groups = membership()
    optimizer.param_groups[0]["params"].pop()
    with pytest.raises(EditFailedError, match=r"fc\.bias"):
        groups.check()


class Rebuilt(torch.optim.SGD):
    """Makes its groups again whenever they are read, so an edit of them is lost."""

    is_ready = False

    @property
    def param_groups(self):
        if not self.is_ready:
            return self._groups
        return [{**group, "params": list(group["params"])} for group in self._groups]

    @param_groups.setter
    def param_groups(self, groups) -> None:
        self._groups = groups


def test_an_optimizer_that_loses_an_inserted_layer_rolls_the_edit_back() -> None:
    model = build(Plain)
    optimizer = Rebuilt(model.parameters(), 0.1)
    optimizer.is_ready = True
    editor = Editor(model, [optimizer])
    before = checksum(model)
    with pytest.raises(EditFailedError, match="in no parameter group of Rebuilt"):
        editor.apply(InsertLayer("conv1"), probe_of(model))
    assert checksum(model) == before
