"""No exception but ours leaves the engine, and none leaves the network changed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from revacnn_lightning.errors import EditFailedError, EditRefusedError, SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.execution import edit_application
from tests.steering import nets


def test_an_internal_error_fails_the_edit_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def check_same_structure(*args: object) -> None:
        raise IndexError("index 7 is out of bounds")

    model, editor, probe = nets.editor_of(nets.Plain)
    before = nets.checksum(model, *editor.optimizers, journal=editor.journal)
    monkeypatch.setattr(edit_application, "check_same_structure", check_same_structure)
    with pytest.raises(EditFailedError, match=r"internal error \(IndexError: index 7"):
        editor.apply(requests.RemoveFilters("conv1", [1]), probe)
    assert nets.checksum(model, *editor.optimizers, journal=editor.journal) == before
    assert "Traceback" in caplog.text


def test_an_internal_error_in_a_plan_refuses_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    monkeypatch.setattr(editor._copies, "find", partial(_raise, ZeroDivisionError()))
    with pytest.raises(EditRefusedError, match="internal error"):
        editor.plan(requests.AddFilters("conv1"), probe)


def _raise(error: Exception, *args: object) -> None:
    raise error


class Centered(nn.Module):
    """The mean of each filter is zero."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight - weight.mean((1, 2, 3), keepdim=True)


class Mixed(nn.Module):
    """A fixed matrix mixes the filters."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(filters, filters))

    def forward(self, weight: Tensor) -> Tensor:
        return (self.mix @ weight.flatten(1)).view_as(weight)


class Halves(nn.Module):
    """Stores two tensors."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second])

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(weight.chunk(2))


class Sliced(nn.Module):
    """The weight is part of a larger tensor."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight[:-1]

    def right_inverse(self, weight: Tensor) -> Tensor:
        return torch.cat([weight, weight[:1]])


def parametrized(make: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def apply(conv: nn.Module) -> nn.Module:
        parametrize.register_parametrization(conv, "weight", make(conv), unsafe=True)
        return conv

    return apply


def pruned(conv: nn.Module) -> nn.Module:
    return prune.ln_structured(conv, "weight", 0.4, n=2, dim=0)


KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm dim 1": partial(parametrizations.weight_norm, dim=1),
    "weight_norm of the whole": partial(parametrizations.weight_norm, dim=None),
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "centered": parametrized(lambda conv: Centered()),
    "mixed": parametrized(lambda conv: Mixed(conv.weight.shape[0])),
    "two tensors": parametrized(lambda conv: Halves()),
    "sliced": parametrized(lambda conv: Sliced()),
    "twice": lambda conv: parametrized(lambda c: Centered())(parametrizations.weight_norm(conv)),
    "pruned": pruned,
}


def network(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        wrap(nn.Conv2d(3, 8, 3, padding=1, bias=False)), nn.ReLU(),
        wrap(nn.Conv2d(8, 8, 3, padding=1, groups=8)), nn.ReLU(),
        wrap(nn.Conv2d(8, 4, 1)), nn.Flatten(), nn.Linear(144, 2),
    ).double()  # fmt: skip


def random_request(source: random.Random, model: nn.Module) -> requests.Edit:
    layer = source.choice(["0", "2", "4"])
    filters = source.sample(range(8), source.choice([1, 2]))
    return source.choice([
        requests.RemoveFilters(layer, filters), requests.RemoveFilters(layer, filters),
        requests.AddFilters(layer), requests.AddFilters(layer, split_from=filters[0]),
        requests.MergeFilters(layer, filters), requests.RemoveLayer(layer),
        requests.InsertLayer(layer), requests.Freeze(layer, filters),
        requests.Reinitialize(layer, filters), requests.Undo(), requests.Redo(),
    ])  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_only_our_exceptions_leave_the_engine(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model, source = network(KINDS[kind]), random.Random(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    editor, probe = Editor(model, [optimizer]), ForwardProbe([partial(model, x)])
    applied = 0
    for number in itertools.count():
        if number == 25:
            break
        before = nets.checksum(model, optimizer)
        try:
            editor.apply(random_request(source, model), probe)
            applied += 1
        except SteeringError:
            assert nets.checksum(model, optimizer) == before
        for i in ("0", "2", "4"):
            conv = model.get_submodule(i)
            if isinstance(conv, nn.Conv2d) and "parametrizations" in conv._modules:
                assert conv.weight.shape[0] == conv.out_channels
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    assert applied
    assert "Internal error" not in caplog.text
