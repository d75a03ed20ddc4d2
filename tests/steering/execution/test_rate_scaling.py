"""A scaled learning rate trains a layer as a parameter group of its own would."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim import Optimizer, lr_scheduler

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe, Journal
from revacnn_lightning.steering.execution import rate_scaling
from revacnn_lightning.telemetry import Recorder
from tests.steering import nets

LINEAR: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1},
    "SGD with momentum": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "dampening": 0.1},
    "SGD with Nesterov momentum": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.05, "weight_decay": 0.1, "foreach": True},
    "Adam with AMSGrad": {"lr": 0.05, "amsgrad": True},
    "AdamW": {"lr": 0.05, "weight_decay": 0.1},
    "AdamW fused": {"lr": 0.05, "fused": True},
    "NAdam": {"lr": 0.05},
    "RAdam": {"lr": 0.05},
    "Adamax": {"lr": 0.05},
    "Adagrad": {"lr": 0.05, "lr_decay": 0.1},
    "Adadelta": {"lr": 0.5},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
}


def build(kind: type[nn.Module] = nets.Plain) -> nn.Module:
    """Return a network without a bias before its norm, whose gradient would be rounding only."""
    model = nets.build(kind)
    model.conv1.bias = None
    return model


def make_optimizer(name: str, parameters: Any) -> Optimizer:
    kind: Callable[..., Optimizer] = getattr(torch.optim, name.split(" ")[0])
    return kind(parameters, **LINEAR[name])


def of_conv1(model: nn.Module) -> list[nn.Parameter]:
    return [*model.conv1.parameters(), *model.bn1.parameters()]


def with_own_group(name: str, model: nn.Module, factor: float) -> Optimizer:
    """Return an optimizer that trains conv1 and bn1 in a group of their own."""
    own = of_conv1(model)
    rest = [p for p in model.parameters() if all(p is not each for each in own)]
    optimizer = make_optimizer(name, [{"params": rest}, {"params": own}])
    optimizer.param_groups[1]["lr"] *= factor
    return optimizer


def scaled(name: str, factor: float, kind: type[nn.Module] = nets.Plain) -> Any:
    """Return a network with a scaled conv1, its optimizer and its editor."""
    model = build(kind)
    optimizer = make_optimizer(name, model.parameters())
    editor = Editor(model, [optimizer])
    editor.apply(requests.ScaleLearningRate("conv1", factor), nets.probe_of(model))
    return model, optimizer, editor


def assert_same(model: nn.Module, reference: nn.Module) -> None:
    for (name, one), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("factor", [0.1, 3.0])
@pytest.mark.parametrize("name", LINEAR)
def test_a_layer_trains_as_in_a_group_of_its_own(name: str, factor: float) -> None:
    model, optimizer, _ = scaled(name, factor)
    reference = build()
    own_group = with_own_group(name, reference, factor)
    plain = build()
    full = make_optimizer(name, plain.parameters())
    for i in range(6):
        nets.step(model, optimizer, seed=i)
        nets.step(reference, own_group, seed=i)
        nets.step(plain, full, seed=i)
    assert_same(model, reference)
    assert not torch.allclose(model.conv1.weight, plain.conv1.weight, rtol=1e-3)


def test_single_precision_differs_by_rounding_only() -> None:
    model, reference = build().float(), build().float()
    optimizer = make_optimizer("AdamW", model.parameters())
    images = nets.images(4).float()
    editor = Editor(model, [optimizer])
    editor.apply(requests.ScaleLearningRate("conv1", 0.1), nets.probe_of(model, images))
    own_group = with_own_group("AdamW", reference, 0.1)
    for _ in range(6):
        for each, its_optimizer in ((model, optimizer), (reference, own_group)):
            its_optimizer.zero_grad()
            each(images).square().mean().backward()
            its_optimizer.step()
    torch.testing.assert_close(model.conv1.weight, reference.conv1.weight, rtol=1e-5, atol=1e-6)


def test_half_precision_is_rounded_once() -> None:
    before = torch.tensor([1.0, 1.0], dtype=torch.bfloat16)
    now = torch.tensor([1.0078125, 2.0], dtype=torch.bfloat16)
    rate_scaling._scale_change(now, before, 1.5)
    exact = torch.tensor([1.01171875, 2.5])
    assert torch.equal(now, exact.to(torch.bfloat16))


def test_the_factor_follows_a_schedule() -> None:
    model, optimizer, _ = scaled("SGD with momentum", 0.1)
    reference = build()
    own_group = with_own_group("SGD with momentum", reference, 0.1)
    schedules = [lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=8)]
    schedules.append(lr_scheduler.OneCycleLR(own_group, [0.5, 0.05], total_steps=8))
    for i in range(6):
        nets.step(model, optimizer, seed=i)
        nets.step(reference, own_group, seed=i)
        for schedule in schedules:
            schedule.step()
    assert_same(model, reference)


def test_gradients_are_accumulated_as_before() -> None:
    model, optimizer, _ = scaled("Adam", 0.1)
    reference = build()
    own_group = with_own_group("Adam", reference, 0.1)
    for each, its_optimizer in ((model, optimizer), (reference, own_group)):
        for i in range(6):
            each(nets.images(4, i)).square().mean().backward()
            if i % 3 == 2:
                its_optimizer.step()
                its_optimizer.zero_grad()
    assert_same(model, reference)


def test_a_step_with_a_closure_is_scaled() -> None:
    model, optimizer, _ = scaled("AdamW", 0.1)
    reference = build()
    own_group = with_own_group("AdamW", reference, 0.1)
    for each, its_optimizer in ((model, optimizer), (reference, own_group)):

        def closure(each: nn.Module = each, its_optimizer: Optimizer = its_optimizer) -> Tensor:
            its_optimizer.zero_grad()
            loss = each(nets.images(4)).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            its_optimizer.step(closure)
    assert_same(model, reference)


def test_a_step_that_a_gradient_scaler_skips_changes_nothing() -> None:
    model, optimizer, _ = scaled("SGD with momentum", 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    nets.step(model, optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale(model(nets.images()).sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(map(torch.equal, before, model.parameters()))
    optimizer.zero_grad()
    scaler.scale(model(nets.images()).square().mean()).backward()
    scaler.step(optimizer)
    assert not torch.equal(before[0], model.conv1.weight)


def test_frozen_filters_of_a_scaled_layer_stay_as_they_are() -> None:
    model, optimizer, editor = scaled("AdamW", 0.3)
    nets.step(model, optimizer)
    editor.apply(requests.Freeze("conv1", [1, 4]), nets.probe_of(model))
    reference = copy.deepcopy(model)
    own_group = with_own_group("AdamW", reference, 0.3)
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        own_group.state[other] = copy.deepcopy(optimizer.state[one])
    weight = model.conv1.weight.detach().clone()
    for i in range(3):
        nets.step(model, optimizer, seed=i)
        nets.step(reference, own_group, seed=i)
        with torch.no_grad():
            reference.conv1.weight[[1, 4]] = model.conv1.weight[[1, 4]]
            for one, other in zip(reference.bn1.parameters(), model.bn1.parameters(), strict=True):
                one[[1, 4]] = other[[1, 4]]
            for one, other in zip(reference.bn1.buffers(), model.bn1.buffers(), strict=True):
                if one.ndim:
                    one[[1, 4]] = other[[1, 4]]
    assert torch.equal(model.conv1.weight[[1, 4]], weight[[1, 4]])
    assert_same(model, reference)


def test_new_filters_of_a_scaled_layer_train_at_its_rate() -> None:
    """The hooks that repeat the steps of new entries would take back the scaling."""

    def moved(*edits: requests.Edit) -> Tensor:
        model = build()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        editor = Editor(model, [optimizer])
        for i in range(3):
            nets.step(model, optimizer, seed=i)
        editor.apply(requests.AddFilters("conv1", split_from=0), nets.probe_of(model))
        for edit in edits:
            editor.apply(edit, nets.probe_of(model))
        before = model.conv1.weight.detach().clone()
        nets.step(model, optimizer, seed=7)
        return model.conv1.weight.detach() - before

    full, tenth = moved(), moved(requests.ScaleLearningRate("conv1", 0.1))
    assert full[6:].abs().sum() > 0
    torch.testing.assert_close(tenth, full * 0.1, rtol=1e-9, atol=1e-14)


def test_the_rate_is_restored_undone_and_redone() -> None:
    model, optimizer, editor = scaled("SGD", 0.1)
    probe = nets.probe_of(model)
    assert editor.learning_rate_factor("conv1") == 0.1
    editor.apply(requests.ScaleLearningRate("conv1", 0.5), probe)
    editor.apply(requests.Undo(), probe)
    assert editor.learning_rate_factor("conv1") == 0.1
    editor.apply(requests.Redo(), probe)
    assert editor.learning_rate_factor("conv1") == 0.5
    outcome = editor.apply(requests.ScaleLearningRate("conv1", 1.0), probe)
    assert outcome.plan.title == "Train conv1 at the full learning rate"
    assert outcome.output_change == 0
    assert editor.learning_rate_factor("conv1") == 1.0
    assert not optimizer._optimizer_step_post_hooks
    editor.apply(requests.Undo(3), probe)
    assert editor.learning_rate_factor("conv1") == 1.0
    reference = build()
    nets.step(model, optimizer)
    nets.step(reference, make_optimizer("SGD", reference.parameters()))
    assert all(map(torch.equal, model.parameters(), reference.parameters()))


def test_no_hook_exists_while_no_layer_is_scaled() -> None:
    model, optimizer, editor = scaled("SGD", 0.1)
    assert optimizer._optimizer_step_pre_hooks
    pickle.loads(pickle.dumps(model))
    editor.apply(requests.Undo(), nets.probe_of(model))
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    registered = sys.modules[Optimizer.__module__]._global_optimizer_pre_hooks
    count = len(registered)
    editor.apply(requests.Redo(), nets.probe_of(model))
    assert len(registered) == count + 1
    editor.close()
    assert len(registered) == count


def test_an_optimizer_that_replaces_the_first_is_scaled() -> None:
    model, _, editor = scaled("SGD", 0.1)
    reference = build()
    nets.step(model, make_optimizer("AdamW", model.parameters()))
    nets.step(reference, with_own_group("AdamW", reference, 0.1))
    assert_same(model, reference)
    editor.close()


class Lookahead(Optimizer):
    """Wraps another optimizer and averages its weights with slow ones (Zhang et al. 2019)."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner
        super().__init__(inner.param_groups, {})
        self.slow = [p.detach().clone() for g in self.param_groups for p in g["params"]]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        with torch.no_grad():
            fast = [p for g in self.param_groups for p in g["params"]]
            for slow, each in zip(self.slow, fast, strict=True):
                slow.lerp_(each, 0.5)
                each.copy_(slow)


def test_a_wrapped_optimizer_was_scaled_twice() -> None:
    model = build()
    wrapped = Lookahead(make_optimizer("SGD", model.parameters()))
    editor = Editor(model, [wrapped])
    editor.apply(requests.ScaleLearningRate("conv1", 0.1), nets.probe_of(model))
    reference = build()
    reference_wrapped = Lookahead(with_own_group("SGD", reference, 0.1))
    for i in range(3):
        nets.step(model, wrapped, seed=i)
        nets.step(reference, reference_wrapped, seed=i)
    assert_same(model, reference)


def test_an_error_while_scaling_does_not_stop_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer, _ = scaled("SGD", 0.1)

    def fail(*_: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(rate_scaling, "_scale_change", fail)
    with caplog.at_level(logging.WARNING):
        nets.step(model, optimizer)
        nets.step(model, optimizer)
    assert [r.message for r in caplog.records] == [
        "The learning rates of layers are no longer scaled: no memory"
    ]


# ---------------------------------------------------------------------- structure


def factors(editor: Editor, *layers: str) -> list[float]:
    return [editor.learning_rate_factor(layer) for layer in layers]


def test_layers_that_share_a_weight_have_one_rate() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.second = nn.Conv2d(3, 3, 3, padding=1)
            self.second.weight = self.first.weight
            self.fc = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))

    model = nets.build(Tied)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    editor, probe = Editor(model, [optimizer]), nets.probe_of(model)
    plan = editor.apply(requests.ScaleLearningRate("second", 0.1), probe).plan
    assert factors(editor, "first", "second", "fc") == [0.1, 0.1, 1.0]
    assert plan.coupling
    reference = nets.build(Tied)
    rates = [
        {"params": [*reference.first.parameters(), reference.second.bias], "lr": 0.01},
        {"params": reference.fc.parameters()},
    ]
    nets.step(model, optimizer)
    nets.step(reference, torch.optim.SGD(rates, lr=0.1))
    assert_same(model, reference)
    editor.apply(requests.ScaleLearningRate("first", 1), probe)
    assert factors(editor, "first", "second") == [1.0, 1.0]


def test_the_parameters_of_parametrizations_are_scaled() -> None:
    def weight_normed(factor: float = 1.0) -> tuple[nn.Module, Optimizer]:
        model = build()
        parametrizations.weight_norm(model.conv1)
        return model, with_own_group("SGD", model, factor)

    model, optimizer = weight_normed()
    editor = Editor(model, [optimizer])
    editor.apply(requests.ScaleLearningRate("conv1", 0.1), nets.probe_of(model))
    reference, own_group = weight_normed(0.1)
    nets.step(model, optimizer)
    nets.step(reference, own_group)
    assert_same(model, reference)


def test_what_takes_the_place_of_a_removed_layer_has_the_full_rate() -> None:
    model, _, editor = scaled("SGD", 0.1)
    probe = nets.probe_of(model)
    editor.apply(requests.RemoveLayer("conv1"), probe)
    assert isinstance(model.conv1, nn.Conv2d)  # of size 1x1
    assert factors(editor, "conv1") == [1.0]
    editor.apply(requests.Undo(), probe)
    assert factors(editor, "conv1") == [0.1]
    editor.apply(requests.Redo(), probe)
    assert factors(editor, "conv1") == [1.0]


def test_an_inserted_block_of_the_same_name_has_the_full_rate() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    block = "conv1.inserted1.conv"
    editor.apply(requests.InsertLayer("conv1", "dirac"), probe)
    editor.apply(requests.ScaleLearningRate(block, 0.1), probe)
    editor.apply(requests.Undo(2), probe)
    editor.apply(requests.InsertLayer("conv1", "dirac"), probe)
    assert factors(editor, block, "conv1") == [1.0, 1.0]
    editor.apply(requests.ScaleLearningRate("conv1", 0.5), probe)
    before = model.get_submodule(block).weight.detach().clone()
    nets.step(model, editor.optimizers[0])
    change = (model.get_submodule(block).weight - before).abs().max().item()
    assert change == pytest.approx(1e-3, rel=1e-3)  # the first step of Adam: its full rate


def test_a_norm_behind_an_inserted_layer_has_the_full_rate() -> None:
    model, editor, probe = nets.editor_of(nets.Residual)
    editor.apply(requests.ScaleLearningRate("stem.0", 0.1), probe)
    before = model.stem[1].bias.detach().clone()
    nets.step(model, editor.optimizers[0])
    own = (model.stem[1].bias - before).abs().max().item()
    editor.apply(requests.InsertLayer("stem.0", "dirac"), probe)
    before = model.stem[1].bias.detach().clone()
    nets.step(model, editor.optimizers[0])
    assert own < 3e-4 < (model.stem[1].bias - before).abs().max().item()


def test_filters_are_added_and_removed_in_a_scaled_layer() -> None:
    model, optimizer, editor = scaled("SGD", 0.1)
    probe = nets.probe_of(model)
    editor.apply(requests.RemoveFilters("conv1", [0]), probe)
    editor.apply(requests.AddFilters("conv1", 3), probe)
    reference = copy.deepcopy(model)
    nets.step(model, optimizer)
    nets.step(reference, with_own_group("SGD", reference, 0.1))
    assert_same(model, reference)


def test_a_replaced_layer_has_the_full_rate() -> None:
    model, _, editor = scaled("SGD", 0.1)
    model.conv1 = nn.Conv2d(3, 6, 3, padding=1).double()
    editor.adopt_replaced_layers()
    assert factors(editor, "conv1") == [1.0]


def test_a_replayed_journal_scales_the_rate() -> None:
    _, _, editor = scaled("SGD", 0.1)
    data = pickle.loads(pickle.dumps(editor.journal.to_data()))
    fresh, reference = build(), build()
    journal = Journal.from_data(data)
    journal.replay(fresh)
    optimizer = make_optimizer("SGD", fresh.parameters())
    resumed = Editor(fresh, [optimizer], journal=journal)
    nets.step(fresh, optimizer)
    nets.step(reference, with_own_group("SGD", reference, 0.1))
    assert_same(fresh, reference)
    resumed.apply(requests.Undo(), nets.probe_of(fresh))
    assert factors(resumed, "conv1") == [1.0]


# ---------------------------------------------------------------------- measuring


@pytest.mark.parametrize("name", ["SGD with momentum", "AdamW"])
def test_the_update_ratio_of_a_scaled_layer_was_that_of_the_full_rate(name: str) -> None:
    full = update_ratio_of_conv1(name)
    tenth = update_ratio_of_conv1(name, requests.ScaleLearningRate("conv1", 0.1))
    assert (full > 0).all()
    # The ratio is to the weights after the step, which differ.
    torch.testing.assert_close(tenth, full * 0.1, rtol=0.2, atol=0)


@pytest.mark.parametrize("name", ["SGD with momentum", "AdamW"])
def test_frozen_filters_had_an_update_ratio(name: str) -> None:
    full = update_ratio_of_conv1(name)
    frozen = update_ratio_of_conv1(name, requests.Freeze("conv1", [1, 4]))
    assert (frozen[[1, 4]] == 0).all()
    assert (full[[1, 4]] > 0).all()


def update_ratio_of_conv1(name: str, *edits: requests.Edit) -> Tensor:
    """Return the update ratio of each filter in the second step."""
    model = build()
    optimizer = make_optimizer(name, model.parameters())
    nets.step(model, optimizer)
    recorder, editor = Recorder(model), Editor(model, [optimizer])
    recorder.attach()
    for edit in edits:
        editor.apply(edit, nets.probe_of(model))
    recorder.begin_batch()
    nets.step(model, optimizer)
    batch = recorder.end_batch()
    recorder.detach()
    editor.close()
    return torch.as_tensor(batch.values[batch.names.index("update_ratio"), :6].copy())


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("layer", "factor", "reason"),
    [
        ("conv1", -1.0, "finite and positive"),
        ("conv1", float("nan"), "finite and positive"),
        ("conv1", float("inf"), "finite and positive"),
        ("conv1", 0.0, "freeze it instead"),
        ("conv1", 1e-9, "freeze it instead"),
        ("conv1", 1000.0, "at most 100"),
        ("conv1", 1.0, "already"),
        ("bn1", 0.1, "only convs and linear layers"),
        ("conv9", 0.1, "no layer 'conv9'"),
    ],
)
def test_invalid_factors_are_refused(layer: str, factor: float, reason: str) -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    with pytest.raises(EditRefusedError, match=reason):
        editor.apply(requests.ScaleLearningRate(layer, factor), probe)
    assert editor.version == 0


def test_the_plan_names_optimizers_that_use_the_rate_differently() -> None:
    model = build()
    editor = Editor(model, [torch.optim.Rprop(model.parameters())])
    plan = editor.apply(requests.ScaleLearningRate("conv1", 0.1), nets.probe_of(model)).plan
    assert any(note.startswith("Rprop uses its learning rate for the first") for note in plan.notes)
    assert "the learning rate of the batch norm bn1 is scaled, too" in plan.notes


def test_a_layer_without_parameters_is_refused() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, bias=False)
            weight = self.conv.weight.detach()
            del self.conv.weight
            self.conv.weight = weight

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    model = Functional()
    probe = ForwardProbe([lambda: model(torch.ones(1, 3, 5, 5))])
    with pytest.raises(EditRefusedError, match="no parameters of its own"):
        Editor(model).plan(requests.ScaleLearningRate("conv", 0.1), probe)
