"""Undo restores what an edit changed and keeps what was trained since; redo brings it back."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, Journal
from tests.steering import nets

# kind of network, the edit
EDITS = [
    (nets.Residual, requests.RemoveFilters("stem.0", [1, 5])),
    (nets.Residual, requests.AddFilters("a.1", count=2)),
    (nets.Residual, requests.AddFilters("a.0.0", split_from=2)),
    (nets.Grouped, requests.RemoveFilters("grouped.0", [2])),
    (nets.Grouped, requests.AddFilters("conv.0")),
    (nets.Concat, requests.RemoveFilters("up", [0])),
    (nets.Concat, requests.MergeFilters("deep.0", [1, 3, 4])),
    (nets.Shuffle, requests.RemoveFilters("left.0", [1])),
    (nets.Plain, requests.SetFilter("conv2", 1, [0, 3], [1.0, 2.0])),
    (nets.Plain, requests.Reinitialize("conv1", [0, 4])),
    (nets.Plain, requests.InsertLayer("conv1")),
    (nets.Plain, requests.InsertLayer("conv2", "dirac")),
    (nets.Plain, requests.RemoveLayer("conv1")),
    (nets.Residual, requests.RemoveLayer("a")),
    (nets.Plain, requests.Freeze("conv1", [1])),
    (nets.Plain, requests.ScaleLearningRate("conv1", 0.1)),
]
named = pytest.mark.parametrize(
    ("kind", "request_"), EDITS, ids=lambda v: getattr(v, "__name__", type(v).__name__)
)


def trained(kind: type[nn.Module], optimizer: str = "Adam") -> tuple[nn.Module, Editor]:
    model = nets.build(kind)
    chosen = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-2)
    for i in range(2):
        nets.step(model, chosen, seed=i)
    return model, Editor(model, [chosen])


@named
def test_immediate_undo_restores_every_bit(kind: type[nn.Module], request_: requests.Edit) -> None:
    model, editor = trained(kind)
    before = nets.checksum(model, *editor.optimizers)
    probe = nets.probe_of(model)
    editor.apply(request_, probe)
    assert nets.checksum(model, *editor.optimizers) != before or kind is nets.Plain
    editor.apply(requests.Undo(), probe)
    assert nets.checksum(model, *editor.optimizers) == before
    assert not editor.journal.entries
    assert editor.version == 2


@named
def test_training_after_an_immediate_undo_is_bit_identical(
    kind: type[nn.Module], request_: requests.Edit
) -> None:
    model, editor = trained(kind)
    unedited, other = trained(kind)
    editor.apply(request_, nets.probe_of(model))
    editor.apply(requests.Undo(), nets.probe_of(model))
    for i in range(3):
        nets.step(model, editor.optimizers[0], seed=10 + i)
        nets.step(unedited, other.optimizers[0], seed=10 + i)
    assert nets.checksum(model, *editor.optimizers) == nets.checksum(unedited, *other.optimizers)


@named
def test_undo_after_training_restores_the_structure(
    kind: type[nn.Module], request_: requests.Edit
) -> None:
    model, editor = trained(kind)
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    order = [[id(p) for p in g["params"]] for g in editor.optimizers[0].param_groups]
    editor.apply(request_, nets.probe_of(model))
    nets.step(model, editor.optimizers[0])
    editor.apply(requests.Undo(), nets.probe_of(model))
    assert {name: t.shape for name, t in model.state_dict().items()} == shapes
    assert [[id(p) for p in g["params"]] for g in editor.optimizers[0].param_groups] == order
    nets.step(model, editor.optimizers[0])


def test_undo_restores_removed_entries_and_keeps_later_training() -> None:
    model, editor = trained(nets.Plain)
    (optimizer,) = editor.optimizers
    weight = model.conv1.weight.detach().clone()
    moment = optimizer.state[model.conv1.weight]["exp_avg"].clone()
    editor.apply(requests.RemoveFilters("conv1", [2]), nets.probe_of(model))
    nets.step(model, optimizer)
    survivors = model.conv1.weight.detach().clone()
    editor.apply(requests.Undo(), nets.probe_of(model))
    assert torch.equal(model.conv1.weight[2], weight[2])
    assert torch.equal(optimizer.state[model.conv1.weight]["exp_avg"][2], moment[2])
    assert torch.equal(model.conv1.weight[[0, 1, 3, 4, 5]], survivors)
    assert editor.filter_ids("conv1") == [0, 1, 2, 3, 4, 5]


def test_undoing_a_split_keeps_later_training() -> None:
    model, editor = trained(nets.Plain)
    columns = model.conv2.weight.detach().clone()
    editor.apply(requests.AddFilters("conv1", split_from=1), nets.probe_of(model))
    with torch.no_grad():
        model.conv2.weight[:, 1] += 0.25  # as training might change the first copy
    editor.apply(requests.Undo(), nets.probe_of(model))
    assert torch.allclose(model.conv2.weight[:, 1], columns[:, 1] + 0.25)
    assert torch.equal(model.conv2.weight[:, [0, 2, 3, 4, 5]], columns[:, [0, 2, 3, 4, 5]])


def test_undoing_twenty_edits() -> None:
    model, editor = trained(nets.Residual)
    probe = nets.probe_of(model)
    before = nets.checksum(model, *editor.optimizers)
    for i in range(10):
        editor.apply(requests.AddFilters("stem.0"), probe)
        editor.apply(requests.RemoveFilters("a.1", [i % 3]), probe)
    middle = copy.deepcopy(model.state_dict())
    editor.apply(requests.Undo(5), probe)
    for _ in range(15):
        editor.apply(requests.Undo(), probe)
    assert nets.checksum(model, *editor.optimizers) == before
    assert middle["stem.0.weight"].shape == (8, 3, 3, 3)
    with pytest.raises(EditRefusedError, match="0 can"):
        editor.apply(requests.Undo(), probe)


@named
def test_immediate_redo_restores_every_bit(kind: type[nn.Module], request_: requests.Edit) -> None:
    model, editor = trained(kind)
    probe = nets.probe_of(model)
    editor.apply(request_, probe)
    nets.step(model, editor.optimizers[0])  # what is redone was trained
    before = nets.checksum(model, *editor.optimizers)
    ids = {name: editor.filter_ids(name) for name in editor.channel_groups(probe).filters}
    editor.apply(requests.Undo(), probe)
    editor.apply(requests.Redo(), probe)
    assert nets.checksum(model, *editor.optimizers) == before
    assert {name: editor.filter_ids(name) for name in ids} == ids
    assert editor.version == 3
    assert (len(editor.journal.entries), editor.journal.undone) == (1, [])


@named
def test_a_redone_edit_is_undone_again(kind: type[nn.Module], request_: requests.Edit) -> None:
    model, editor = trained(kind)
    probe = nets.probe_of(model)
    before = nets.checksum(model, *editor.optimizers)
    for request in (request_, requests.Undo(), requests.Redo(), requests.Undo()):
        editor.apply(request, probe)
    assert nets.checksum(model, *editor.optimizers) == before


def test_redo_restores_new_filters_and_keeps_what_was_trained_since() -> None:
    model, editor = trained(nets.Plain)
    (optimizer,), probe = editor.optimizers, nets.probe_of(model)
    editor.apply(requests.AddFilters("conv1"), probe)
    nets.step(model, optimizer)
    new, column = model.conv1.weight[6].clone(), model.conv2.weight[:, 6].clone()
    moment = optimizer.state[model.conv1.weight]["exp_avg"][6].clone()
    editor.apply(requests.Undo(), probe)
    nets.step(model, optimizer, seed=5)
    survivors = model.conv1.weight.detach().clone()
    editor.apply(requests.Redo(), probe)
    assert torch.equal(model.conv1.weight[6], new)
    assert torch.equal(model.conv2.weight[:, 6], column)
    assert torch.equal(optimizer.state[model.conv1.weight]["exp_avg"][6], moment)
    assert torch.equal(model.conv1.weight[:6], survivors)
    assert editor.filter_ids("conv1") == [0, 1, 2, 3, 4, 5, 6]


def test_redo_of_a_split_keeps_what_was_trained_since() -> None:
    model, editor = trained(nets.Plain)
    probe = nets.probe_of(model)
    editor.apply(requests.AddFilters("conv1", split_from=1), probe)
    shared = model.conv2.weight.detach().clone()
    editor.apply(requests.Undo(), probe)
    with torch.no_grad():
        model.conv2.weight[:, 1] += 0.25
    editor.apply(requests.Redo(), probe)
    assert torch.allclose(model.conv2.weight[:, 1], shared[:, 1] + 0.25)
    rest = [0, 2, 3, 4, 5, 6]  # the copy is as it was
    assert torch.equal(model.conv2.weight[:, rest], shared[:, rest])


def test_redo_of_an_inserted_layer_restores_its_training() -> None:
    model, editor = trained(nets.Plain)
    (optimizer,), probe = editor.optimizers, nets.probe_of(model)
    editor.apply(requests.InsertLayer("conv1"), probe)
    nets.step(model, optimizer)
    weight = model.conv1.inserted1.conv.weight.detach().clone()
    moment = optimizer.state[model.conv1.inserted1.conv.weight]["exp_avg"].clone()
    editor.apply(requests.Undo(), probe)
    nets.step(model, optimizer)
    editor.apply(requests.Redo(), probe)
    assert torch.equal(model.conv1.inserted1.conv.weight, weight)
    assert torch.equal(optimizer.state[model.conv1.inserted1.conv.weight]["exp_avg"], moment)
    nets.step(model, optimizer)
    assert not torch.equal(model.conv1.inserted1.conv.weight, weight)


def test_edits_are_redone_in_the_order_in_which_they_were_made() -> None:
    model, editor = trained(nets.Residual)
    probe = nets.probe_of(model)
    for i in range(3):
        editor.apply(requests.AddFilters("stem.0"), probe)
        editor.apply(requests.RemoveFilters("a.1", [i]), probe)
    edited = nets.checksum(model, *editor.optimizers)
    ids = editor.filter_ids("stem.0")
    titles = [entry.plan.title for entry in editor.journal.entries]
    editor.apply(requests.Undo(4), probe)
    editor.apply(requests.Undo(2), probe)
    plan = editor.apply(requests.Redo(), probe).plan
    assert plan.title == f"Redo: {titles[0]}"
    assert plan.parameters_after > plan.parameters_before
    editor.apply(requests.Redo(5), probe)
    assert nets.checksum(model, *editor.optimizers) == edited
    assert editor.filter_ids("stem.0") == ids
    assert [entry.plan.title for entry in editor.journal.entries] == titles


def test_a_new_edit_discards_the_undone_ones() -> None:
    model, editor = trained(nets.Plain)
    probe = nets.probe_of(model)
    with pytest.raises(EditRefusedError, match="1 edits cannot be redone; 0 can"):
        editor.apply(requests.Redo(), probe)
    editor.apply(requests.AddFilters("conv1"), probe)
    editor.apply(requests.Undo(), probe)
    with pytest.raises(EditRefusedError, match="redo is 0; it must be at least 1"):
        editor.apply(requests.Redo(0), probe)
    editor.apply(requests.RemoveFilters("conv2", [1]), probe)
    with pytest.raises(EditRefusedError, match="a new edit discards"):
        editor.apply(requests.Redo(), probe)


@named
def test_redo_in_another_process(kind: type[nn.Module], request_: requests.Edit) -> None:
    """An undone edit is redone after saving and loading as well."""
    model, editor = trained(kind)
    probe = nets.probe_of(model)
    editor.apply(request_, probe)
    nets.step(model, editor.optimizers[0])
    before = {name: t.clone() for name, t in model.state_dict().items()}
    editor.apply(requests.Undo(), probe)
    file = io.BytesIO()
    torch.save([editor.journal.to_data(), model.state_dict()], file)
    file.seek(0)
    data, weights = torch.load(file, weights_only=True)

    fresh = nets.build(kind, seed=7)
    journal = Journal.from_data(data)
    journal.replay(fresh)
    fresh.load_state_dict(weights)
    later = Editor(fresh, [torch.optim.Adam(fresh.parameters())], journal=journal)
    later.apply(requests.Redo(), nets.probe_of(fresh))
    after = fresh.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert later.version == 3
    later.apply(requests.Undo(), nets.probe_of(fresh))
    nets.step(fresh, later.optimizers[0])


@pytest.mark.parametrize("optimizer", ["SGD", "Adagrad", "Rprop", "ASGD", "LBFGS", "Adafactor"])
def test_undo_with_other_optimizers(optimizer: str) -> None:
    def fit(model: nn.Module, chosen: torch.optim.Optimizer, seed: int) -> None:
        def closure() -> torch.Tensor:
            chosen.zero_grad()
            loss = model(nets.images(4, seed)).square().mean()
            loss.backward()
            return loss

        chosen.step(closure)

    model = nets.build(nets.Plain)
    chosen = getattr(torch.optim, optimizer)(model.parameters())
    fit(model, chosen, 1)
    editor = Editor(model, [chosen])
    probe = nets.probe_of(model)
    before = nets.checksum(model, chosen)
    for request in (
        requests.AddFilters("conv1", count=2),
        requests.RemoveFilters("conv2", [1, 2]),
        requests.InsertLayer("conv1"),
        requests.RemoveLayer("conv2"),
    ):
        editor.apply(request, probe)
        editor.apply(requests.Undo(), probe)
        assert nets.checksum(model, chosen) == before
    editor.apply(requests.AddFilters("conv1", count=2), probe)
    editor.apply(requests.InsertLayer("conv1"), probe)
    fit(model, chosen, 2)
    edited = nets.checksum(model, chosen)
    editor.apply(requests.Undo(2), probe)
    editor.apply(requests.Redo(2), probe)
    assert nets.checksum(model, chosen) == edited
    editor.apply(requests.Undo(2), probe)
    fit(model, chosen, 3)
    editor.apply(requests.Redo(2), probe)
    fit(model, chosen, 4)


def test_undo_in_another_process() -> None:
    """Undo works after saving and loading, also for removed layers."""
    model, editor = trained(nets.Residual)
    probe = nets.probe_of(model)
    weight = model.a[1].weight.detach().clone()
    before = copy.deepcopy(model.state_dict())
    for request in (
        requests.AddFilters("stem.0"),
        requests.Freeze("stem.0", [0]),
        requests.RemoveLayer("a"),
        requests.RemoveFilters("b.0.0", [1]),
    ):
        editor.apply(request, probe)
    file = io.BytesIO()
    torch.save([editor.journal.to_data(), model.state_dict()], file)
    file.seek(0)
    data, weights = torch.load(file, weights_only=True)

    fresh = nets.build(nets.Residual, seed=7)
    journal = Journal.from_data(data)
    journal.replay(fresh)
    fresh.load_state_dict(weights)
    later = Editor(fresh, [torch.optim.Adam(fresh.parameters())], journal=journal)
    assert later.frozen_filters("stem.0") == [0]
    later.apply(requests.Undo(4), nets.probe_of(fresh))
    assert torch.equal(fresh.a[1].weight, weight)
    after = fresh.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not later.frozen_filters("stem.0")
