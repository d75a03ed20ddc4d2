"""Copies of modules: found by structure and evidence, edited along exactly, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from revacnn_lightning import (
    AddFilters,
    EditRefusedError,
    Freeze,
    InsertLayer,
    MergeFilters,
    Reinitialize,
    RemoveFilters,
    RemoveLayer,
    SetFilter,
    Undo,
)
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.holders.object_walk import CopyHolder
from tests.steering.nets import Plain, Residual, images, probe_of


class Twins(nn.Module):
    """A network, and a copy of it that its forward does not run."""

    def __init__(self, kind: type[nn.Module] = Plain, name: str = "ema") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = kind()
        self.add_module(name, copy.deepcopy(self.net).requires_grad_(False))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Both(Twins):
    """A momentum encoder: its forward is run, too."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) - self.ema(x).detach()


class Towers(nn.Module):
    """Two towers that started as equals and are trained both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = Plain()
        self.b = copy.deepcopy(self.a)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x.flip(0))


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, twin: nn.Module | None, steps: int = 3
) -> None:
    """Train, and average the trained network into its twin."""
    x = images(4).double()
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        if twin is not None:
            for q, p in zip(twin.parameters(), model.net.parameters(), strict=True):
                q.data.lerp_(p.data, 0.3)


def setup(kind: type[nn.Module] = Twins, **options: Any) -> tuple[Any, Editor, ForwardProbe, Any]:
    model = kind()
    optimizer = optimizer_of(model)
    editor = Editor(model, [optimizer], **options)
    probe = probe_of(model, images(2).double())
    return model, editor, probe, optimizer


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(images(4, seed=3).double())


GROWING = [
    AddFilters("net.conv1", 2),
    AddFilters("net.conv2", 1, split_from=3),
    InsertLayer("net.conv1"),
]


@pytest.mark.parametrize("kind", [Twins, Both])
@pytest.mark.parametrize("edit", GROWING, ids=["add", "split", "insert"])
def test_a_registered_copy_grows_along_and_computes_what_it_did(kind: Any, edit: Any) -> None:
    model, editor, probe, optimizer = setup(kind)
    train(model, optimizer, model.ema)
    before = output(model.ema)
    editor.apply(edit, probe)
    torch.testing.assert_close(output(model.ema), before, rtol=1e-12, atol=1e-12)
    assert [p.shape for p in model.ema.parameters()] == [p.shape for p in model.net.parameters()]
    assert not any(p.requires_grad for p in model.ema.parameters())
    train(model.train(), optimizer, model.ema)


def test_new_filters_of_a_copy_are_those_of_the_model() -> None:
    model, editor, probe, optimizer = setup()
    train(model, optimizer, model.ema)
    weights = [model.net.conv1.weight.clone(), model.ema.conv1.weight.clone()]
    editor.apply(AddFilters("net.conv1", 2), probe)
    assert torch.equal(model.ema.conv1.weight[6:], model.net.conv1.weight[6:])
    assert torch.equal(model.ema.conv1.bias[6:], model.net.conv1.bias[6:])
    assert torch.equal(model.net.conv1.weight[:6], weights[0])
    assert torch.equal(model.ema.conv1.weight[:6], weights[1])


def test_removed_filters_leave_the_values_of_a_copy_as_they_are() -> None:
    model, editor, probe, optimizer = setup()
    train(model, optimizer, model.ema)
    before = copy.deepcopy(model.ema.state_dict())
    editor.apply(RemoveFilters("net.conv1", [1, 4]), probe)
    kept = [0, 2, 3, 5]
    assert torch.equal(model.ema.conv1.weight, before["conv1.weight"][kept])
    assert torch.equal(model.ema.bn1.running_var, before["bn1.running_var"][kept])
    assert torch.equal(model.ema.conv2.weight, before["conv2.weight"][:, kept])
    editor.apply(Undo(), probe)
    after = model.ema.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    train(model.train(), optimizer, model.ema)


EDITS = [
    AddFilters("net.conv1", 2),
    RemoveFilters("net.conv2", [0, 3]),
    InsertLayer("net.conv2"),
    MergeFilters("net.conv1", [1, 2]),
    Reinitialize("net.conv1", [0]),
    SetFilter("net.conv1", 3, neighbors=[0, 1], weights=[1.0, 1.0]),
    Freeze("net.conv1", [0]),
    RemoveLayer("net.bn1"),
]


@pytest.mark.parametrize("kind", [Twins, Both])
def test_undo_restores_a_copy_bit_by_bit(kind: Any) -> None:
    model, editor, probe, optimizer = setup(kind)
    train(model, optimizer, model.ema)
    before = copy.deepcopy(model.state_dict())
    for edit in EDITS:
        editor.apply(edit, probe)
    assert [n for n, _ in model.ema.named_parameters()] == [
        n for n, _ in model.net.named_parameters()
    ]
    editor.apply(Undo(len(EDITS)), probe)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_journal_replays_the_edits_of_a_registered_copy() -> None:
    model, editor, probe, optimizer = setup()
    train(model, optimizer, model.ema)
    for edit in EDITS:
        editor.apply(edit, probe)
    fresh = Twins()
    type(editor.journal).from_data(editor.journal.to_data()).replay(fresh)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(output(fresh.ema), output(model.ema))


def test_filters_of_a_copy_keep_their_ids() -> None:
    model, editor, probe, optimizer = setup()
    train(model, optimizer, model.ema)
    plan = editor.apply(RemoveFilters("net.conv1", [1]), probe).plan
    assert editor.filter_ids("ema.conv1") == [0, 2, 3, 4, 5]
    assert {change.layer for change in plan.filter_changes} == {"net.conv1", "ema.conv1"}
    assert "ema" in plan.coupling
    count = sum(p.numel() for p in model.parameters())
    assert plan.parameters_after == count


def test_towers_trained_both_are_independent() -> None:
    model, editor, probe, optimizer = setup(Towers)
    editor.apply(RemoveFilters("a.conv1", [0]), probe)
    assert (model.a.conv1.out_channels, model.b.conv1.out_channels) == (5, 6)
    optimizer.zero_grad()


def test_a_frozen_network_with_other_values_is_independent() -> None:
    model = Twins(name="teacher")
    torch.manual_seed(5)
    for p in model.teacher.parameters():
        nn.init.normal_(p)
    optimizer = optimizer_of(model)
    editor = Editor(model, [optimizer])
    train(model, optimizer, None)
    editor.apply(RemoveFilters("net.conv1", [0]), probe_of(model, images(2).double()))
    assert (model.net.conv1.out_channels, model.teacher.conv1.out_channels) == (5, 6)


def test_an_unchanged_copy_is_edited_only_if_its_function_stays_or_it_is_declared() -> None:
    model = Twins(name="teacher")
    probe = probe_of(model, images(2).double())
    editor = Editor(model, [optimizer_of(model)])
    editor.apply(AddFilters("net.conv1", 1), probe)
    assert model.teacher.conv1.out_channels == 7
    with pytest.raises(
        EditRefusedError, match=r"teacher resembles net.*copies=\{'teacher': 'net'\}"
    ):
        editor.plan(RemoveFilters("net.conv1", [0]), probe)
    before = model.teacher.conv1.weight.clone()
    editor.apply(Reinitialize("net.conv1", [0]), probe)
    assert torch.equal(model.teacher.conv1.weight, before)

    declared = Editor(model, [optimizer_of(model)], copies={"teacher": "net"})
    declared.apply(RemoveFilters("net.conv1", [0]), probe)
    assert (model.net.conv1.out_channels, model.teacher.conv1.out_channels) == (6, 6)
    alone = Editor(model, [optimizer_of(model)], copies={"teacher": None})
    model(images(2).double()).sum().backward()  # shows that training does not run the teacher
    alone.apply(RemoveFilters("net.conv1", [0]), probe)
    assert (model.net.conv1.out_channels, model.teacher.conv1.out_channels) == (5, 6)


def test_a_copy_that_has_changed_since_the_start_is_certain() -> None:
    model = Twins(name="teacher")
    optimizer = optimizer_of(model)
    editor = Editor(model, [optimizer])
    train(model, optimizer, model.teacher)
    probe = probe_of(model, images(2).double())
    editor.apply(RemoveFilters("net.conv1", [0]), probe)
    editor.apply(RemoveFilters("net.conv1", [0]), probe)  # still known after an edit
    assert model.teacher.conv1.out_channels == 4


def test_a_layer_of_a_copy_is_refused_with_the_name_of_the_origin() -> None:
    model, editor, probe, optimizer = setup(Both)
    train(model, optimizer, model.ema)
    for edit in (AddFilters("ema.conv1", 1), Freeze("ema.conv1", [0]), InsertLayer("ema.conv1")):
        with pytest.raises(EditRefusedError, match=r"ema is a copy of net.*edit net.conv1 instead"):
            editor.plan(edit, probe)
    refusals = editor.refusals(probe)  # so that a viewer does not offer it
    assert "edit net.conv1 instead" in refusals["ema.conv1"]
    assert "net.conv1" not in refusals


def test_a_copy_of_one_of_two_equal_modules_is_refused_until_declared() -> None:
    model = Towers()
    model.ema = copy.deepcopy(model.a).requires_grad_(False)
    probe = probe_of(model, images(2).double())
    editor = Editor(model, [optimizer_of(model)])
    with pytest.raises(EditRefusedError, match="ema may be a copy of a or of b"):
        editor.plan(AddFilters("a.conv1", 1), probe)
    editor = Editor(model, [optimizer_of(model)], copies={"ema": "b"})
    editor.apply(AddFilters("a.conv1", 1), probe)
    editor.apply(AddFilters("b.conv1", 2), probe)
    assert [m.conv1.out_channels for m in (model.a, model.b, model.ema)] == [7, 8, 8]


class Callback:
    """Holds what a test gives it."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


HOLDERS: dict[str, Callable[[nn.Module], tuple[Any, nn.Module]]] = {
    "module": lambda m: (c := copy.deepcopy(m), c),
    "list in a dict": lambda m: ({"a": [c := copy.deepcopy(m.net)]}, c),
    "AveragedModel": lambda m: (c := AveragedModel(m), c.module),
    "object": lambda m: (Callback(inner=(c := copy.deepcopy(m))), c),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_copies_held_by_a_callback_are_edited_along(kind: str) -> None:
    model = Twins(Residual)
    held, twin = HOLDERS[kind](model)
    optimizer = optimizer_of(model)
    holder = CopyHolder("Average", Callback(held=held))
    editor = Editor(model, [optimizer], find_holders=lambda: [holder])
    train(model, optimizer, model.ema)
    probe = probe_of(model, images(2).double())
    before = copy.deepcopy(twin.state_dict())
    x = output(twin)
    for edit in (AddFilters("net.stem.0", 2), InsertLayer("net.a.0.0"), AddFilters("net.b.0.0", 1)):
        plan = editor.apply(edit, probe).plan
        assert "Average.held" in plan.coupling
        torch.testing.assert_close(output(twin), x, rtol=1e-12, atol=1e-12)
    editor.apply(RemoveFilters("net.b.0.0", [0]), probe)
    editor.apply(RemoveLayer("net.a.2"), probe)
    origin = model if hasattr(twin, "net") else model.net
    assert [(n, p.shape) for n, p in twin.named_parameters()] == [
        (n, p.shape) for n, p in origin.named_parameters()
    ]
    editor.apply(Undo(5), probe)
    after = twin.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_copy_made_after_an_edit_is_reverted_with_it() -> None:
    model = Twins()
    callback = Callback(average=None)
    editor = Editor(
        model, [optimizer_of(model)], find_holders=lambda: [CopyHolder("Average", callback)]
    )
    probe = probe_of(model, images(2).double())
    train(model, optimizer_of(model), model.ema)
    editor.apply(RemoveFilters("net.conv1", [0]), probe)
    editor.apply(RemoveLayer("net.bn1"), probe)
    callback.average = copy.deepcopy(model)
    editor.apply(Undo(2), probe)
    restored = model.state_dict()
    assert all(torch.equal(v, restored[n]) for n, v in callback.average.state_dict().items())


def test_a_failing_edit_leaves_copies_as_they_were() -> None:
    model, editor, _, optimizer = setup()
    train(model, optimizer, model.ema)
    held = copy.deepcopy(model)
    editor._find_holders = lambda: [CopyHolder("Average", Callback(held=held))]
    before = {n: t.clone() for n, t in (*model.state_dict().items(), *_prefixed(held))}

    def fail(*_: Any) -> Tensor:
        if model.net.conv1.out_channels > 6:
            raise RuntimeError("no")
        return model(images(2).double())

    with pytest.raises(Exception, match="rolled back"):
        editor.apply(AddFilters("net.conv1", 1), ForwardProbe([fail], 2))
    after = dict((*model.state_dict().items(), *_prefixed(held)))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert held.net.conv1.out_channels == held.ema.conv1.out_channels == 6


def _prefixed(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(f"held.{name}", tensor) for name, tensor in module.state_dict().items()]
