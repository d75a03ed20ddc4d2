"""Young entries move on average at most 1.25 times as far as the mature entries beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.execution import update_cap
from tests.steering import nets

ROWS, COLUMNS = ("conv1", 0), ("conv2", 1)  # layer, dimension of the filters of conv1
OLD = 6

every_optimizer = pytest.mark.parametrize(
    ("name", "options"),
    [("Adam", {}), ("Adam", {"foreach": True}), ("AdamW", {"weight_decay": 0.1}),
     ("RMSprop", {}), ("NAdam", {}), ("Adamax", {})],
    ids=str,
)  # fmt: skip


def grown_by_two(name: str, options: dict[str, Any]) -> tuple[Any, Any, Editor]:
    """Return a network whose conv1 got filters 6 and 7, its optimizer and editor."""
    model = nets.build(nets.Plain)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, **options)
    for seed in range(7):
        nets.step(model, optimizer, seed)
    editor = Editor(model, [optimizer])
    editor.apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
    return model, optimizer, editor


def step(model: Any, optimizer: Any, old: slice, new: slice, dead: slice | None = None) -> None:
    """Make a step in which the gradients of old filters are noise, and those of new ones agree."""
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for layer, dim in (ROWS, COLUMNS):
        gradient = model.get_submodule(layer).weight.grad.transpose(0, dim)
        gradient[old] *= 1e-3  # as late in a training: far below the averages
        gradient[new] = 1.0
        if dead is not None:
            gradient[dead] = 0.0
    optimizer.step()


def updates(model: Any, optimizer: Any, old: slice, new: slice, **kwargs: Any) -> list[Tensor]:
    """Return (old, new): the mean absolute changes of a step, of each weight."""
    weights = [
        model.get_submodule(layer).weight.transpose(0, dim) for layer, dim in (ROWS, COLUMNS)
    ]
    before = [w.detach().clone() for w in weights]
    step(model, optimizer, old, new, **kwargs)
    changes = [(w.detach() - b).abs() for w, b in zip(weights, before, strict=True)]
    return [torch.stack([c[old].mean(), c[new].mean()]) for c in changes]


@every_optimizer
def test_updates_of_new_filters_are_at_most_a_little_larger_than_those_of_the_others(
    name: str, options: dict[str, Any]
) -> None:
    model, optimizer, _ = grown_by_two(name, options)
    ratios = [
        float(new / old)
        for _ in range(12)
        for old, new in updates(model, optimizer, slice(OLD), slice(OLD, None))
    ]
    assert max(ratios) == pytest.approx(update_cap.MAX_RATIO, rel=1e-3)


@every_optimizer
def test_the_cap_leaves_the_other_filters_as_they_were(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for ratio in (1.25, float("inf")):
        monkeypatch.setattr(update_cap, "MAX_RATIO", ratio)
        torch.manual_seed(0)
        model, optimizer, _ = grown_by_two(name, options)
        for _ in range(4):
            step(model, optimizer, slice(OLD), slice(OLD, None))
        results.append((model, optimizer))
    (one, first), (two, second) = results
    assert not torch.equal(one.conv2.weight, two.conv2.weight)
    for layer, dim in (ROWS, COLUMNS):
        weight, other = (m.get_submodule(layer).weight for m in (one, two))
        assert torch.equal(weight.transpose(0, dim)[:OLD], other.transpose(0, dim)[:OLD])
        for key, value in first.state[weight].items():  # the moments of new filters, too
            assert torch.equal(value, second.state[other][key])


def test_frozen_filters_are_not_compared() -> None:
    model, optimizer, editor = grown_by_two("Adam", {})
    editor.apply(requests.Freeze("conv1", [0, 1, 2]), nets.probe_of(model))
    ratios = []
    for _ in range(12):
        (old, new), _ = updates(model, optimizer, slice(3, OLD), slice(OLD, None))
        ratios.append(float(new / old))
    assert max(ratios) == pytest.approx(update_cap.MAX_RATIO, rel=1e-3)


@pytest.mark.parametrize("dead", [5, 6])
def test_new_filters_among_dead_ones_train(dead: int) -> None:
    model, optimizer, _ = grown_by_two("Adam", {})
    for _ in range(200):  # Adam moves dead filters no more
        step(model, optimizer, slice(dead, OLD), slice(OLD, None), dead=slice(dead))
    for old, new in updates(model, optimizer, slice(dead, OLD), slice(OLD, None), dead=slice(dead)):
        assert float(new) > 1e-3 if dead == OLD else float(new / old) > 0.3


def test_a_parameter_without_mature_entries_is_not_capped() -> None:
    """Neither are filters that are mature themselves."""
    model, optimizer, editor = grown_by_two("Adam", {})
    editor.apply(requests.Reinitialize("conv1", list(range(OLD))), nets.probe_of(model))
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before = model.conv1.weight.detach().clone()
    optimizer.step()
    change = (model.conv1.weight.detach() - before).abs()
    share = (0.1 / 1.9) ** 0.5  # of the learning rate: the damping of the first step
    torch.testing.assert_close(change, torch.full_like(change, 0.01 * share), rtol=1e-4, atol=0)


@pytest.mark.parametrize("share", [0.5, torch.tensor(0.5)], ids=["host", "device"])
def test_the_share_is_never_increased(share: Any) -> None:
    change = torch.tensor([2.0, -6.0])  # 2 on average with a share of 0.5
    for mean_mature_update, expected in ((0.8, 0.25), (1.7, 0.5), (9.0, 0.5), (float("nan"), 0.5)):
        capped = update_cap.cap_young_update_share(share, change, torch.tensor(mean_mature_update))
        assert float(capped) == expected


def test_the_cap_ends_when_the_filters_are_mature() -> None:
    model, optimizer, _ = grown_by_two("Adam", {"betas": (0.5, 0.5)})
    for _ in range(9):
        step(model, optimizer, slice(OLD), slice(OLD, None))
    ratios = [float(n / o) for o, n in updates(model, optimizer, slice(OLD), slice(OLD, None))]
    assert max(ratios) > 1.5
