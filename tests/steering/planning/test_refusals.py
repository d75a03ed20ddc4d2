"""What a refusal says is true."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe


class Around(nn.Module):
    """conv1 -> what the subclass does with ``odd`` -> conv2."""

    def __init__(self, odd: nn.Module) -> None:
        super().__init__()
        self.conv1, self.odd, self.conv2 = nn.Conv2d(3, 4, 1), odd, nn.Conv2d(4, 2, 1)

    def run(self, x: Tensor) -> Tensor:
        return self.odd(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.run(self.conv1(x)))


class OneChannel(Around):
    def run(self, x: Tensor) -> Tensor:
        return x * self.odd(x.mean(1, keepdim=True))


class NoGrad(Around):
    def run(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return x + self.odd(x)


class Checkpointed(Around):
    def run(self, x: Tensor) -> Tensor:
        return checkpoint(self.odd, x, use_reentrant=False)


class EvalOnly(Around):
    def run(self, x: Tensor) -> Tensor:
        return x if self.training else self.odd(x)


class Functional(Around):
    def run(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.odd.weight, self.odd.bias)


class Direct(Around):
    def run(self, x: Tensor) -> Tensor:
        return self.odd.forward(x)


class Unfolded(Around):
    def run(self, x: Tensor) -> Tensor:
        weight = self.odd.weight.flatten(1)
        return (x.movedim(1, -1) @ weight.t()).movedim(-1, 1)


class ZeroInput(Around):
    def run(self, x: Tensor) -> Tensor:
        return x + self.odd(torch.zeros_like(x))


class Hidden(Around):
    def run(self, x: Tensor) -> Tensor:
        return x


def refusal(model: nn.Module, layer: str = "odd") -> str:
    model.train()
    return Editor(model).refusals(probe_of(model)).get(layer, "")


def probe_of(model: nn.Module) -> ForwardProbe:
    return ForwardProbe([partial(model, torch.rand(2, 3, 4, 4))])


@pytest.mark.parametrize(
    "model",
    [
        NoGrad(nn.Conv2d(4, 4, 1)),
        Checkpointed(nn.Conv2d(4, 4, 1)),
        EvalOnly(nn.Conv2d(4, 4, 1)),
        Functional(nn.Conv2d(4, 4, 1)),
        Direct(nn.Conv2d(4, 4, 1)),
        ZeroInput(nn.Conv2d(4, 4, 1)),
        OneChannel(nn.Conv2d(1, 1, 1)),
        OneChannel(nn.Conv2d(1, 1, 1, bias=False)),
        Around(nn.ConvTranspose2d(4, 4, 1, groups=4)),
        Around(nn.Conv2d(4, 4, 1, groups=4)),
        Around(nn.Conv2d(4, 4, 1, groups=2)),
        Around(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))),
        Around(nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))),
    ],
    ids=lambda model: f"{type(model).__name__}-{type(model.odd).__name__}",
)
def test_a_conv_that_runs_was_said_not_to_run(model: Around):
    assert "not run" not in refusal(model)


def test_a_conv_whose_weight_is_read_elsewhere_is_said_to_be_read():
    assert "other operations read its weight" in refusal(Unfolded(nn.Conv2d(4, 4, 1)))


def test_a_conv_that_nothing_runs_is_said_not_to_run():
    assert "was not run" in refusal(Hidden(nn.Conv2d(4, 4, 1)))
    assert "was not run" in refusal(Hidden(nn.Conv2d(1, 1, 1)))


def test_only_a_conv_with_a_single_filter_is_said_to_have_one():
    model = OneChannel(nn.Conv2d(1, 1, 1))
    assert refusal(model) == ""  # only a plan finds out
    with pytest.raises(EditRefusedError, match="single filter"):
        Editor(model).apply(requests.AddFilters("odd"), probe_of(model))
    transposed = refusal(Around(nn.ConvTranspose2d(4, 4, 1, groups=4)))
    assert "one filter per group" in transposed
    assert "single filter" not in transposed
    spectral = refusal(Around(nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))))
    assert "single filter" not in spectral


@pytest.mark.parametrize("kind", [Functional, Direct])
def test_a_conv_that_is_not_called_as_a_module_can_be_edited(kind: type[Around]):
    model, x = kind(nn.Conv2d(4, 4, 1)).double(), torch.rand(2, 3, 4, 4).double()
    before = model(x)
    probe = ForwardProbe([partial(model, x)])
    editor = Editor(model)
    editor.apply(requests.AddFilters("odd"), probe)
    editor.apply(requests.AddFilters("conv1"), probe)
    assert torch.allclose(model(x), before)
    assert (model.odd.in_channels, model.odd.out_channels) == (5, 5)


def test_a_conv_can_be_edited_as_soon_as_a_batch_runs_it():
    """The refusal said so, but the network was not traced again."""

    class Branches(Around):
        is_open = False

        def run(self, x: Tensor) -> Tensor:
            return self.odd(x) if self.is_open else x

    model, x = Branches(nn.Conv2d(4, 4, 1)), torch.rand(2, 3, 4, 4)
    model(x).sum().backward()
    editor = Editor(model)
    with pytest.raises(EditRefusedError, match="was not run"):
        editor.apply(requests.AddFilters("odd"), ForwardProbe([partial(model, x)]))
    model.is_open = True
    editor.apply(requests.AddFilters("odd"), ForwardProbe([partial(model, x)]))
    assert model.odd.out_channels == 5
