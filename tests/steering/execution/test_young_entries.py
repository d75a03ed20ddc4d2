"""New entries train like those of a fresh parameter; all others as if nothing was added."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.checkpoint import (
    STATE_KEY,
    add_edits,
    adopt_structure,
    restore_entry_ages,
)
from revacnn_lightning.steering.execution import entry_ages, update_cap, young_entries
from tests.steering import nets

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    ("Adam", {"foreach": True, "maximize": True}),
    ("Adam", {"fused": True}),
    ("AdamW", {"weight_decay": 0.1}),
    ("AdamW", {"fused": True}),
    ("NAdam", {}),
    ("NAdam", {"foreach": True, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("RAdam", {}),
    ("Adamax", {}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.9, "foreach": True}),
    # No correction is needed for these.
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adagrad", {"initial_accumulator_value": 0.1}),
    ("Adadelta", {}),
    ("Rprop", {}),
    ("ASGD", {"lambd": 0.0}),  # otherwise its rate decays with the steps of all entries
]
every_optimizer = pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)


@pytest.fixture(autouse=True)
def _without_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cap of `test_update_cap` does not bind, updates are exactly those of Reference."""
    monkeypatch.setattr(update_cap, "MAX_RATIO", float("inf"))


class Reference:
    """A fresh parameter and optimizer, for some entries of a parameter of a model in training.

    It gets the gradients of those entries, and makes the damped share of each update.
    """

    def __init__(
        self, make: Callable[..., torch.optim.Optimizer], weight: Tensor, at: tuple[Any, ...]
    ) -> None:
        self.weight, self.at = weight, at
        self.own = nn.Parameter(weight.detach()[at].clone())
        self.optimizer = make([self.own])
        self.age = 0

    def step(self, gradient: Tensor | None = None) -> None:
        before = self.own.detach().clone()
        self.own.grad = self.weight.grad[self.at].clone() if gradient is None else gradient
        self.optimizer.step()
        self.age += 1
        group = self.optimizer.param_groups[0]
        share = 1.0
        if type(self.optimizer) is torch.optim.RMSprop:
            share = (1 - group["alpha"] ** self.age) ** 0.5
        elif "betas" in group:
            decayed = group["betas"][0] ** self.age
            share = ((1 - decayed) / (1 + decayed)) ** 0.5
        with torch.no_grad():
            self.own.copy_(before + share * (self.own - before))

    def check(self) -> None:
        torch.testing.assert_close(self.weight.detach()[self.at], self.own.detach(),
                                   rtol=1e-6, atol=1e-9)  # fmt: skip


def maker(name: str, options: dict[str, Any]) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: getattr(torch.optim, name)(parameters, lr=0.01, **options)


def trained(name: str, options: dict[str, Any]) -> tuple[Any, torch.optim.Optimizer]:
    """Return a network that was trained for 7 steps, and its optimizer."""
    model = nets.build(nets.Plain)
    optimizer = maker(name, options)(model.parameters())
    for seed in range(7):
        nets.step(model, optimizer, seed)
    return model, optimizer


def train(model: Any, optimizer: Any, references: list[Reference], seeds: range) -> None:
    for seed in seeds:
        nets.step(model, optimizer, seed)
        for reference in references:
            reference.step()
            reference.check()


@every_optimizer
def test_new_entries_train_like_a_fresh_parameter(name: str, options: dict[str, Any]) -> None:
    model, optimizer = trained(name, options)
    editor = Editor(model, [optimizer])
    editor.apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
    make = maker(name, options)
    references = [
        Reference(make, model.conv1.weight, (slice(6, None),)),
        Reference(make, model.bn1.weight, (slice(6, None),)),
        Reference(make, model.conv2.weight, (slice(None), slice(6, None))),
    ]
    train(model, optimizer, references, range(10, 16))


@every_optimizer
def test_old_entries_do_not_depend_on_the_correction(name: str, options: dict[str, Any]) -> None:
    """Bit by bit, on equal gradients."""
    results = []
    for corrected in (True, False):
        model, optimizer = trained(name, options)
        editor = Editor(model, [optimizer])
        editor.apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
        if not corrected:
            editor.close()
        generator = torch.Generator().manual_seed(3)
        for _ in range(4):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator).double()
            optimizer.step()
        results.append((model, optimizer))
    (one, first), (two, second) = results
    for layer, old in (("conv1", (slice(6),)), ("conv2", (slice(None), slice(6)))):
        weight, expected = (m.get_submodule(layer).weight for m in (one, two))
        assert torch.equal(weight[old], expected[old])
        for key, value in first.state[weight].items():
            other = second.state[expected][key]
            assert torch.equal(value[old], other[old]) if value.ndim else torch.equal(value, other)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam", "RMSprop"])
def test_ages_survive_other_edits(name: str) -> None:
    """Two generations, a removal of a young filter and its undo, and a removal of old ones."""
    model, optimizer = trained(name, {})
    editor, probe, make = Editor(model, [optimizer]), nets.probe_of(model), maker(name, {})
    weight = model.conv2.weight
    editor.apply(requests.AddFilters("conv1", 2), probe)
    first = Reference(make, weight, (slice(None, 8), slice(6, 8)))
    train(model, optimizer, [first], range(10, 13))
    editor.apply(requests.AddFilters("conv2", 1), probe)
    second = Reference(make, weight, (slice(8, 9),))  # both dimensions: the younger age counts
    train(model, optimizer, [first, second], range(13, 16))
    editor.apply(requests.RemoveFilters("conv1", [0, 3]), probe)
    first.at = (slice(None, 8), slice(4, 6))
    train(model, optimizer, [first], range(16, 19))
    editor.apply(requests.RemoveFilters("conv1", [4, 5]), probe)
    nets.step(model, optimizer, 19)  # removed filters do not age meanwhile
    editor.apply(requests.Undo(), probe)
    train(model, optimizer, [first], range(20, 23))


@pytest.mark.parametrize("name", ["Adam", "NAdam"])
def test_ages_survive_a_checkpoint(name: str) -> None:
    model, optimizer = trained(name, {})
    editor = Editor(model, [optimizer])
    editor.apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
    nets.step(model, optimizer, 10)
    checkpoint: dict[str, Any] = {}
    add_edits(checkpoint, model, [optimizer])
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, [], range(11, 14))

    fresh = nets.build(nets.Plain)
    adopt_structure(fresh, checkpoint)
    fresh.load_state_dict(weights)
    resumed = maker(name, {})(fresh.parameters())
    restore_entry_ages(fresh, [resumed], checkpoint[STATE_KEY])
    Editor(fresh, [resumed])
    resumed.load_state_dict(state)
    train(fresh, resumed, [], range(11, 14))
    # Loading casts NAdam's product to the type of the weights.
    tolerance = 1e-6 if name == "NAdam" else 0
    for a, b in zip(model.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_a_returning_layer_keeps_the_ages_of_its_entries() -> None:
    model, optimizer = trained("Adam", {})
    editor, probe = Editor(model, [optimizer]), nets.probe_of(model)
    editor.apply(requests.AddFilters("conv2", 1), probe)
    reference = Reference(maker("Adam", {}), model.conv2.weight, (slice(8, 9),))
    train(model, optimizer, [reference], range(10, 12))
    editor.apply(requests.InsertLayer("conv1"), probe)
    editor.apply(requests.RemoveLayer("bn1"), probe)
    editor.apply(requests.Undo(2), probe)
    train(model, optimizer, [reference], range(12, 14))


@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_redone_entries_have_the_age_they_had(name: str) -> None:
    model, optimizer = trained(name, {})
    editor, probe = Editor(model, [optimizer]), nets.probe_of(model)
    editor.apply(requests.AddFilters("conv1", 2), probe)
    reference = Reference(maker(name, {}), model.conv2.weight, (slice(None), slice(6, None)))
    train(model, optimizer, [reference], range(10, 13))
    editor.apply(requests.Undo(), probe)
    train(model, optimizer, [], range(13, 16))
    editor.apply(requests.Redo(), probe)
    train(model, optimizer, [reference], range(16, 19))


def test_a_failed_edit_leaves_the_ages_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained("Adam", {})
    editor, probe = Editor(model, [optimizer]), nets.probe_of(model)
    monkeypatch.setattr(
        "revacnn_lightning.steering.execution.verification.relative_difference",
        lambda *_: float("inf"),
    )
    with pytest.raises(Exception, match="rolled back"):
        editor.apply(requests.AddFilters("conv1", 2), probe)
    assert entry_ages.parameters_with_young_entries(optimizer) == []


def test_young_filters_that_are_frozen_do_not_age() -> None:
    model, optimizer = trained("Adam", {})
    editor, probe = Editor(model, [optimizer]), nets.probe_of(model)
    editor.apply(requests.AddFilters("conv1", 1), probe)
    reference = Reference(maker("Adam", {}), model.conv1.weight, (slice(6, None),))
    train(model, optimizer, [reference], range(10, 12))
    editor.apply(requests.Freeze("conv1", [6]), probe)
    frozen = model.conv1.weight[6].detach().clone()
    train(model, optimizer, [], range(12, 15))
    assert torch.equal(model.conv1.weight[6], frozen)
    editor.apply(requests.Unfreeze("conv1"), probe)
    train(model, optimizer, [reference], range(15, 18))


def test_a_reinitialized_filter_is_young() -> None:
    model, optimizer = trained("Adam", {})
    editor = Editor(model, [optimizer])
    editor.apply(requests.Reinitialize("conv1", [2]), nets.probe_of(model))
    reference = Reference(maker("Adam", {}), model.conv1.weight, (slice(2, 3),))
    train(model, optimizer, [reference], range(10, 13))


def test_a_step_that_the_gradient_scaler_skips_does_not_age() -> None:
    """A fused optimizer divides by the scale itself, and does nothing after an overflow."""
    model, optimizer = trained("Adam", {"fused": True})
    editor = Editor(model, [optimizer])
    editor.apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
    make = maker("Adam", {})
    reference = Reference(make, model.conv2.weight, (slice(None), slice(6, None)))
    for seed, overflow in ((10, False), (11, True), (12, False)):
        model.zero_grad()
        model(nets.images(4, seed)).logsumexp(1).sum().backward()
        gradient = model.conv2.weight.grad[reference.at].clone()
        for parameter in model.parameters():
            parameter.grad *= 8.0
        optimizer.grad_scale = torch.tensor(8.0)
        optimizer.found_inf = torch.tensor(float(overflow))
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        if not overflow:
            reference.step(gradient)
        reference.check()


def test_the_hooks_are_removed_when_all_entries_are_grown() -> None:
    model, optimizer = trained("Adam", {"betas": (0.5, 0.5)})
    editor, probe = Editor(model, [optimizer]), nets.probe_of(model)
    editor.apply(requests.RemoveFilters("conv1", [0]), probe)
    assert not optimizer._optimizer_step_pre_hooks
    editor.apply(requests.AddFilters("conv1", 1), probe)
    assert optimizer._optimizer_step_pre_hooks
    for seed in range(9):
        nets.step(model, optimizer, seed)
    assert not optimizer._optimizer_step_pre_hooks
    assert entry_ages.parameters_with_young_entries(optimizer) == []
    editor.close()
    assert not optimizer._optimizer_step_post_hooks


def test_replaced_optimizers_need_no_correction() -> None:
    """All entries have taken the same number of steps of the new one."""
    model, optimizer = trained("Adam", {})
    editor, probe = Editor(model, [optimizer]), nets.probe_of(model)
    editor.apply(requests.AddFilters("conv1", 2), probe)
    editor.optimizers = [new := torch.optim.Adam(model.parameters())]
    assert not new._optimizer_step_pre_hooks
    nets.step(model, new, 10)
    editor.apply(requests.Freeze("conv2"), probe)
    editor.apply(requests.Unfreeze("conv2"), probe)
    assert not optimizer._optimizer_step_pre_hooks
    assert not new._optimizer_step_pre_hooks


def test_an_error_does_not_stop_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer = trained("Adam", {})
    editor = Editor(model, [optimizer])
    editor.apply(requests.AddFilters("conv1", 2), nets.probe_of(model))

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(young_entries, "step_cohorts_only", fail)
    nets.step(model, optimizer, 10)
    assert "broken" in caplog.text
    nets.step(model, optimizer, 11)


def test_a_second_optimizer_ages_its_entries_on_its_own() -> None:
    model = nets.build(nets.Plain)
    one = torch.optim.Adam(model.conv1.parameters(), lr=0.01)
    two = torch.optim.Adam([*model.conv2.parameters(), *model.fc.parameters()], lr=0.01)
    for seed in range(4):
        nets.step(model, one, seed)
        nets.step(model, two, seed)
    editor = Editor(model, [one, two])
    editor.apply(requests.AddFilters("conv1", 1), nets.probe_of(model))
    make = maker("Adam", {})
    rows = Reference(make, model.conv1.weight, (slice(6, None),))
    columns = Reference(make, model.conv2.weight, (slice(None), slice(6, None)))
    for seed in range(10, 14):
        nets.step(model, one, seed)
        rows.step()
        nets.step(model, two, seed)
        columns.step()
        rows.check()
        columns.check()
        nets.step(model, two, seed + 50)
        columns.step()


class IndexedTensors(TorchFunctionMode):
    """Counts the operations that read or write entries of tensors by their index."""

    count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += func.__name__.startswith(("index", "select", "__getitem__", "__setitem__"))
        return func(*args, **(kwargs or {}))


def test_a_recorded_step_indexed_entries_that_an_edit_removed_later():
    """Under manual optimization, the recorded training step contains that of the optimizer."""
    model, optimizer = trained("Adam", {})
    editor = Editor(model, [optimizer])
    editor.apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
    model(nets.images().double()).square().mean().backward()
    with IndexedTensors() as mode:
        optimizer.step()
    assert mode.count == 0
