"""Tensors are recognized when operations read them, also in a new object."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.tracing.tensor_keys import TensorKeys
from tests.steering import nets


class Wrapped(Tensor):
    """Every result of an operation is wrapped again, as in MONAI's MetaTensor."""


class Counted(Tensor):
    """Passes its title on, and counts the operations on it."""

    calls = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.calls += 1
        result = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(result, cls) and isinstance(args[0], cls):
            result.title = getattr(args[0], "title", "")
        return result


def test_a_wrapped_tensor_is_that_of_the_same_memory():
    keys, x = TensorKeys(), torch.rand(2, 3)
    key = keys.record(x)
    assert keys.find(x) == keys.find(x.as_subclass(Wrapped)) == keys.find(x.data) == key
    assert keys.find(x[:1]) != key
    assert keys.find(x.t()) != key
    assert keys.find(torch.rand(2, 3)) != key
    keys.clear()
    assert keys.find(x.data) != key


@pytest.mark.parametrize("value", [None, 3, torch.zeros(0), torch.eye(2).to_sparse()])
def test_what_has_no_memory_is_no_recorded_tensor(value):
    keys = TensorKeys()
    keys.record(torch.rand(2))
    keys.record(torch.zeros(0))
    assert keys.find(value) == id(value)


@pytest.mark.parametrize("kind", [nets.Residual, nets.Grouped, nets.Concat, nets.Shuffle])
@pytest.mark.parametrize("subclass", [Wrapped, Counted, tv_tensors.Image])
def test_labels_were_lost_where_a_tensor_subclass_wraps_results_again(kind, subclass):
    x = nets.images()
    plain, wrapped = nets.build(kind), nets.build(kind)
    editors = Editor(plain), Editor(wrapped)
    probes = [
        ForwardProbe([partial(plain, x)]),
        ForwardProbe([lambda: wrapped(x.as_subclass(subclass))]),
    ]
    edges, refusals = zip(
        *[(e.edges(p), e.refusals(p)) for e, p in zip(editors, probes, strict=True)], strict=True
    )
    assert edges[0] == edges[1]
    assert refusals[0] == refusals[1]
    layer = edges[0][0][0]
    for request in (requests.AddFilters(layer), requests.RemoveFilters(layer, [0])):
        for editor, probe in zip(editors, probes, strict=True):
            editor.apply(request, probe)
    assert torch.equal(nets.output(plain), nets.output(wrapped))


def test_tracing_calls_no_method_of_a_tensor_subclass():
    model, x = nets.build(nets.Plain), nets.images().as_subclass(Counted)
    Counted.calls = 0
    model(x)
    calls = Counted.calls
    Editor(model).edges(ForwardProbe([partial(model, x)]))
    assert Counted.calls <= 2 * calls + 10  # the forward itself, and reading its output


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.fc(self.conv2(x * x.data.sigmoid()).mean((2, 3)))


def test_labels_were_lost_in_data():
    model, editor, probe = nets.editor_of(Detached)
    before = nets.output(model)
    editor.apply(requests.AddFilters("conv1"), probe)
    assert torch.allclose(nets.output(model), before)
    assert model.conv1.out_channels == 7
