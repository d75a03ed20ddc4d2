"""Copies of parameters that a registered module keeps as buffers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning import AddFilters, EditRefusedError, InsertLayer, RemoveFilters, Undo
from revacnn_lightning.steering import Editor
from tests.steering.nets import Plain, build, images, probe_of


class Shadow(nn.Module):
    """An average in buffers, as in latent-diffusion."""

    def __init__(self, model: nn.Module, separator: str) -> None:
        super().__init__()
        self.names = {n: n.replace(".", separator) for n, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            self.register_buffer(self.names[name], parameter.detach().clone())
        self.register_buffer("decay", torch.tensor(0.9))

    def update(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            getattr(self, self.names[name]).lerp_(parameter.detach(), 0.1)


class Model(nn.Module):
    def __init__(self, separator: str) -> None:
        super().__init__()
        self.net = build(Plain)
        self.shadow = Shadow(self.net, separator)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("separator", ["", "_"])
def test_buffers_that_are_copies_of_parameters_are_edited_along(separator: str) -> None:
    model = Model(separator)
    editor = Editor(model, [torch.optim.Adam(model.parameters())])
    probe = probe_of(model, images())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    editor.apply(AddFilters("net.conv1", 2), probe)
    editor.apply(RemoveFilters("net.conv2", [0, 2]), probe)
    model.shadow.update(model.net)
    name = f"conv1{separator}weight"
    assert torch.equal(getattr(model.shadow, name), model.net.conv1.weight)
    fresh = Model(separator)
    type(editor.journal).from_data(editor.journal.to_data()).replay(fresh)
    fresh.load_state_dict(model.state_dict())
    editor.apply(Undo(2), probe)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_an_inserted_layer_is_refused_by_the_name_of_the_module_with_the_buffers() -> None:
    model = Model("")
    editor = Editor(model, [torch.optim.Adam(model.parameters())])
    with pytest.raises(EditRefusedError, match="shadow keeps the parameters of net as buffers"):
        editor.plan(InsertLayer("net.conv1"), probe_of(model, images()))
