"""New filters are as active as the filters beside them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor
from tests.steering import nets


class Active(nn.Module):
    """Its first conv has outputs that are 8 times as large as those of a fresh one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1)
        with torch.no_grad():
            for parameter in self.conv1.parameters():
                parameter *= 8

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x))).mean((2, 3))


def strengths(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.conv1(nets.images()).clamp(min=0).square().mean((0, 2, 3)).sqrt()


def test_new_filters_are_as_active_as_the_others() -> None:
    model = nets.build(Active)
    optimizer = torch.optim.Adam(model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    edit = Editor(model, [optimizer]).apply(requests.AddFilters("conv1", 3), nets.probe_of(model))
    assert edit.output_change == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(strengths(model)[6:], strengths(model)[:6].mean().expand(3))
    assert torch.equal(model.conv1.weight[:6], before["conv1.weight"])
    assert torch.equal(model.conv1.bias[:6], before["conv1.bias"])
    assert torch.equal(model.conv2.weight[:, :6], before["conv2.weight"])
    assert not model.conv1._forward_hooks


def test_reinitialized_filters_are_as_active_as_the_others() -> None:
    model = nets.build(Active)
    Editor(model).apply(requests.Reinitialize("conv1", [1, 4]), nets.probe_of(model))
    others = strengths(model)[[0, 2, 3, 5]]
    torch.testing.assert_close(strengths(model)[[1, 4]], others.mean().expand(2))


def test_filters_before_a_batch_norm_are_not_scaled() -> None:
    """Larger weights before a norm would get smaller gradients."""
    model = nets.build(nets.Plain)
    with torch.no_grad():
        model.conv1.weight *= 8
    Editor(model).apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
    assert model.conv1.weight[6:].abs().max() <= 27**-0.5


def test_copies_are_not_scaled() -> None:
    model = nets.build(Active)
    Editor(model).apply(requests.AddFilters("conv1", 2, split_from=1), nets.probe_of(model))
    for copy in (2, 3):
        assert torch.equal(model.conv1.weight[copy], model.conv1.weight[1])


def test_beside_dead_filters_nothing_is_scaled() -> None:
    model = nets.build(Active)
    with torch.no_grad():
        model.conv1.weight.zero_()
        model.conv1.bias.fill_(-1)
    Editor(model).apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
    assert model.conv1.weight[6:].isfinite().all()
    assert model.conv1.weight[6:].abs().max() <= 27**-0.5


def test_undo_restores_the_layer() -> None:
    model = nets.build(Active)
    editor, before = Editor(model), nets.checksum(model)
    editor.apply(requests.AddFilters("conv1", 3), nets.probe_of(model))
    editor.apply(requests.Undo(), nets.probe_of(model))
    assert nets.checksum(model) == before
