"""The predicted change of the loss is that of the removal, and nothing is changed to know it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from revacnn_lightning import MergeFilters, Reinitialize, RemoveFilters
from revacnn_lightning.protocol.prices import RemovalPrice
from revacnn_lightning.runtime import removal_prices
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor, ForwardProbe
from tests.runtime.live_run import train_with

IMAGES, LABELS = torch.randn(32, 3, 8, 8), torch.arange(32) % 2


class Residual(nn.Module):
    """Two convs whose filters are coupled by a sum, and a depthwise conv behind them."""

    def __init__(self, norm=nn.BatchNorm2d) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = norm(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = self.first(x).relu()
        x = (x + self.norm(self.second(x))).relu()
        return self.head(self.depthwise(x).mean((2, 3)))

    def step(self):
        return F.cross_entropy(self(IMAGES), LABELS)


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


def prices_of(model: Residual) -> tuple[Editor, ForwardProbe, LossChangeMeasurer]:
    editor, probe = Editor(model), ForwardProbe([lambda: model(IMAGES[:2])])
    editor.channel_groups(probe)
    replay = LossReplay(model)
    replay.record((IMAGES, LABELS), 0, 5, model.step)
    replay.finish_recording()
    assert replay.note == ""
    return editor, probe, LossChangeMeasurer(editor, replay)


def loss_of(model: Residual) -> float:
    model.eval()
    with torch.no_grad():
        return float(model.step())


@pytest.mark.parametrize(
    "request_", [RemoveFilters("second", [1, 4]), MergeFilters("first", [0, 2])]
)
def test_the_predicted_change_is_that_of_the_edit(request_):
    model = Residual()
    editor, probe, prices = prices_of(model)
    price = prices.measure(editor.plan(request_, probe), 0, math.inf)  # on all images
    assert isinstance(price, RemovalPrice)
    edited = copy.deepcopy(model)
    Editor(edited).apply(request_, ForwardProbe([lambda: edited(IMAGES[:2])]))
    assert price.loss == pytest.approx(loss_of(model), abs=1e-6)
    assert price.change == pytest.approx(loss_of(edited) - loss_of(model), abs=1e-6)
    assert (price.images, price.step) == (32, 5)
    assert 0 < price.error < math.inf


def test_measuring_changes_no_value_and_no_gradient():
    model = Residual()
    editor, probe, prices = prices_of(model)
    model.step().backward()
    before = {n: (p.data_ptr(), p.clone(), p.grad.clone()) for n, p in model.named_parameters()}
    for request in (RemoveFilters("first", [3]), Reinitialize("first", [3])):
        assert isinstance(prices.measure(editor.plan(request, probe), 0), RemovalPrice)
    for name, parameter in model.named_parameters():
        address, value, gradient = before[name]
        assert parameter.data_ptr() == address
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, gradient)
    assert model.training


def test_a_silent_filter_costs_exactly_nothing():
    model = Residual()
    with torch.no_grad():
        for module in (model.first, model.second, model.norm):
            module.weight[2] = 0
            module.bias[2] = 0
        model.depthwise.bias.zero_()
    editor, probe, prices = prices_of(model)
    price = prices.measure(editor.plan(RemoveFilters("first", [2]), probe), 0)
    assert (price.change, price.error) == (0, 0)


def test_filters_that_a_norm_mixes_have_no_price():
    model = Residual(group_norm)
    editor, probe, prices = prices_of(model)
    plan = editor.plan(RemoveFilters("second", [0]), probe)
    assert prices.measure(plan, 0) == removal_prices.NORMALIZED


def test_a_loss_that_is_not_finite_has_no_price():
    model = Residual()
    editor, probe, prices = prices_of(model)
    with torch.no_grad():
        model.head.bias.fill_(math.nan)
    plan = editor.plan(RemoveFilters("first", [0]), probe)
    assert prices.measure(plan, 0) == removal_prices.NOT_FINITE


def test_a_price_seeds_no_device_that_is_not_restored(monkeypatch):
    """CUDA devices that torch had yet to initialize began with the seed of a replay."""

    def seeded(seed):
        raise AssertionError

    for module in (torch, torch.cuda):
        name = "manual_seed" if module is torch else "manual_seed_all"
        monkeypatch.setattr(module, name, seeded)
    editor, probe, prices = prices_of(Residual())
    plan = editor.plan(RemoveFilters("first", [0]), probe)
    assert not isinstance(prices.measure(plan, 0), str)


def test_little_time_means_fewer_images():
    model = Residual()
    editor, probe, prices = prices_of(model)
    price = prices.measure(editor.plan(RemoveFilters("first", [0]), probe), 0, seconds=0)
    assert price.images == 2 * 16  # for the spread


def test_plans_and_edits_of_a_run_have_a_price(tmp_path):
    def client(run):
        plan = run.plan(RemoveFilters("conv1", [1]))
        applied = run.apply(RemoveFilters("conv1", [1]))
        return {"plan": plan, "applied": applied}

    result, _ = train_with(client, tmp_path)
    for plan in (result["plan"], result["applied"].plan):
        assert plan.price_note == ""
        assert math.isfinite(plan.price.change)
        assert plan.price.images >= 2
    # Measuring it again would take as long as the edit itself.
    assert result["applied"].plan.price == result["plan"].price
