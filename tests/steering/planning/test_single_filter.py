"""A layer of a single filter grows, although no label shows where its filter goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steering_models import eval_output
from revacnn_lightning.errors import EditRefusedError, SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from tests.steering import nets

EXACT = 1e-10


class Net(nn.Module):
    """conv -> what the subclass does -> head; images (B, 3, 8, 8)."""

    def __init__(self, inputs: int = 1, width: int = 1) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.head = nn.Conv2d(inputs, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(F.relu(self.bn(self.conv(x))), x))

    def middle(self, maps: Tensor, x: Tensor) -> Tensor:
        return maps


class Concatenated(Net):
    def __init__(self) -> None:
        super().__init__(inputs=5)

    def middle(self, maps: Tensor, x: Tensor) -> Tensor:
        return torch.cat([x[:, :2], maps, x[:, 1:]], 1)


class Flattened(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)  # type: ignore[assignment]

    def middle(self, maps: Tensor, x: Tensor) -> Tensor:
        return maps.flatten(1)


class TwoReaders(Net):
    def __init__(self) -> None:
        super().__init__(inputs=8)
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.ConvTranspose2d(1, 4, 1)

    def middle(self, maps: Tensor, x: Tensor) -> Tensor:
        return torch.cat([self.a(maps), self.b(maps)], 1)


class Gate(Net):
    def __init__(self) -> None:
        super().__init__(inputs=3)

    def middle(self, maps: Tensor, x: Tensor) -> Tensor:
        return x * maps


class LayerNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([1, 8, 8])

    def middle(self, maps: Tensor, x: Tensor) -> Tensor:
        return self.norm(maps)


class Output(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


GROWING = [Net, Concatenated, Flattened, TwoReaders]


def built(kind: Callable[[], nn.Module]) -> tuple[nn.Module, Editor, ForwardProbe, Tensor]:
    """Return a network that has trained, its editor, a probe and an unseen batch."""
    torch.manual_seed(0)
    model = kind().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8).double()).square().sum().backward()
        optimizer.step()
    probe = ForwardProbe([partial(model, torch.randn(2, 3, 8, 8).double())])
    return model, Editor(model, [optimizer]), probe, torch.randn(3, 3, 8, 8).double()


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("request_", [
    requests.AddFilters("conv"), requests.AddFilters("conv", 3),
    requests.AddFilters("conv", 2, split_from=0),
])  # fmt: skip
@pytest.mark.parametrize("kind", GROWING)
def test_a_single_filter_gets_others_without_a_change_of_the_function(
    kind: type[Net], request_: requests.AddFilters
) -> None:
    model, editor, probe, x = built(kind)
    assert editor.refusals(probe).get("conv", "") == ""
    before, weights = eval_output(model, x), nets.checksum(model)
    plan = editor.plan(request_, probe)
    assert nets.checksum(model) == weights  # a plan changes nothing
    applied = editor.apply(request_, probe)
    assert applied.plan.title == plan.title
    assert plan.parameters_after == sum(each.numel() for each in model.parameters())
    assert model.conv.out_channels == model.bn.num_features == 1 + request_.count
    assert difference(eval_output(model, x), before) < EXACT
    optimizer = editor.optimizers[0]
    model.train()
    model(x).square().sum().backward()
    optimizer.step()
    editor.apply(requests.RemoveFilters("conv", [1]), probe)  # it can be traced again
    editor.apply(requests.Undo(2), probe)
    assert model.conv.out_channels == 1


def test_a_conv_left_with_one_filter_grows_again_without_undo() -> None:
    model, editor, probe, x = built(nets.Plain)
    editor.apply(requests.RemoveFilters("conv2", list(range(1, 8))), probe)
    editor.apply(requests.RemoveFilters("conv1", [0, 1, 3, 4, 5]), probe)
    before = eval_output(model, x)
    for layer in ("conv1", "conv2"):
        editor.apply(requests.AddFilters(layer, 2), probe)
    assert difference(eval_output(model, x), before) < EXACT
    assert (model.conv1.out_channels, model.bn1.num_features) == (3, 3)
    assert (model.conv2.in_channels, model.conv2.out_channels, model.fc.in_features) == (3, 3, 12)
    editor.apply(requests.Undo(4), probe)
    assert (model.conv1.out_channels, model.conv2.out_channels) == (6, 8)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Gate, "single filter"), (LayerNorm, "single filter"), (Output, "reach the model's output")],
)
def test_what_cannot_have_more_filters_is_refused(kind: type[Net], reason: str) -> None:
    model, editor, probe, _ = built(kind)
    weights = nets.checksum(model)
    with pytest.raises(EditRefusedError, match=reason):
        editor.apply(requests.AddFilters("conv"), probe)
    assert nets.checksum(model) == weights
    assert model.conv.out_channels == 1


def test_a_product_that_would_fit_by_chance_is_never_silently_wrong() -> None:
    class ByChance(Gate):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 4, 1)

        def middle(self, maps: Tensor, x: Tensor) -> Tensor:
            return self.first(x) * maps

    model, editor, probe, _ = built(ByChance)
    weights = nets.checksum(model)
    for count in (1, 6):
        with pytest.raises(SteeringError):
            editor.apply(requests.AddFilters("conv", count), probe)
        assert nets.checksum(model) == weights


def test_a_wrong_request_for_a_single_filter_is_refused() -> None:
    _, editor, probe, _ = built(Net)
    for request_ in (requests.AddFilters("conv", 0), requests.AddFilters("conv", split_from=1)):
        with pytest.raises(EditRefusedError):
            editor.apply(request_, probe)
