"""Frozen weights, optimizer state and statistics never change until they are unfrozen."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, Journal
from tests.steering import nets

OPTIMIZERS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.1, "fused": True}),
    ("Adam", {"lr": 0.1, "foreach": True}),
    ("Rprop", {"lr": 0.1}),
    ("ASGD", {"lr": 0.1, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=lambda v: str(v))
def test_frozen_filters_never_change(name: str, options: dict[str, object]) -> None:
    model = nets.build(nets.Plain)
    optimizer = getattr(torch.optim, name)(model.parameters(), **options)
    nets.step(model, optimizer)
    editor = Editor(model, [optimizer])
    editor.apply(requests.Freeze("conv1", [1, 4]), nets.probe_of(model))
    assert editor.frozen_filters("conv1") == [1, 4]
    tensors = [model.conv1.weight, model.conv1.bias, model.bn1.weight, model.bn1.bias]
    tensors += [model.bn1.running_mean, model.bn1.running_var]
    for parameter in (model.conv1.weight, model.bn1.bias):
        tensors += [v for v in optimizer.state[parameter].values() if v.ndim]
    before = [t.detach().clone() for t in tensors]
    for i in range(3):
        nets.step(model, optimizer, seed=i)
    for then, now in zip(before, tensors, strict=True):
        assert torch.equal(now[[1, 4]], then[[1, 4]])
        assert not torch.equal(now[[0, 2, 3, 5]], then[[0, 2, 3, 5]])
    editor.apply(requests.Unfreeze("conv1"), nets.probe_of(model))
    assert editor.frozen_filters("conv1") == []
    nets.step(model, optimizer)
    assert not torch.equal(model.conv1.weight[1], before[0][1])
    assert not torch.equal(model.bn1.running_mean[1], before[4][1])


def test_freezing_before_the_first_step() -> None:
    """Optimizer state created while filters are frozen keeps its initial values."""
    model, editor, probe = nets.editor_of(nets.Plain)
    editor.apply(requests.Freeze("conv2"), probe)
    weight = model.conv2.weight.detach().clone()
    nets.step(model, editor.optimizers[0])
    assert torch.equal(model.conv2.weight, weight)
    assert editor.optimizers[0].state[model.conv2.weight]["exp_avg"].eq(0).all()


def test_freezing_applies_to_the_filter_not_the_index() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    editor.apply(requests.Freeze("conv1", [3]), probe)
    row = model.conv1.weight[3].detach().clone()
    editor.apply(requests.RemoveFilters("conv1", [1]), probe)
    editor.apply(requests.AddFilters("conv1", split_from=0), probe)
    assert editor.frozen_filters("conv1") == [3]
    editor.apply(requests.RemoveFilters("conv1", [0]), probe)
    assert editor.frozen_filters("conv1") == [2]
    nets.step(model, editor.optimizers[0])
    assert torch.equal(model.conv1.weight[2], row)
    editor.apply(requests.RemoveFilters("conv1", [2]), probe)
    assert editor.frozen_filters("conv1") == []
    editor.apply(requests.Undo(), probe)
    assert editor.frozen_filters("conv1") == [2]


def test_freezing_keeps_the_output_and_is_undone() -> None:
    model, editor, probe = nets.editor_of(nets.Residual)
    outcome = editor.apply(requests.Freeze("a.1"), probe)
    assert outcome.output_change == 0.0
    editor.apply(requests.Undo(), probe)
    weight = model.a[1].weight.detach().clone()
    nets.step(model, editor.optimizers[0])
    assert not torch.equal(model.a[1].weight, weight)


def test_hooks_are_removed_when_nothing_is_frozen() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    (optimizer,) = editor.optimizers
    editor.apply(requests.Freeze("conv1"), probe)
    nets.step(model, optimizer)
    assert optimizer._optimizer_step_pre_hooks
    assert model.bn1._forward_hooks
    pickle.loads(pickle.dumps(model))
    copy.deepcopy(model)(nets.images())
    editor.apply(requests.Unfreeze("conv1"), probe)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not model.bn1._forward_hooks
    assert not model.bn1._forward_pre_hooks


def test_new_optimizers_keep_filters_frozen() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    editor.apply(requests.Freeze("conv1"), probe)
    editor.optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)]
    weight = model.conv1.weight.detach().clone()
    nets.step(model, editor.optimizers[0])
    assert torch.equal(model.conv1.weight, weight)


def test_invalid_freezing_requests_are_refused() -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    with pytest.raises(EditRefusedError, match="not frozen"):
        editor.apply(requests.Unfreeze("conv1", [1]), probe)
    editor.apply(requests.Freeze("conv1", [1]), probe)
    with pytest.raises(EditRefusedError, match="frozen already"):
        editor.apply(requests.Freeze("conv1", [1]), probe)
    with pytest.raises(EditRefusedError, match="unfreeze it first"):
        editor.apply(requests.SetFilter("conv1", 1, [0], [1.0]), probe)


def test_a_norm_after_an_inserted_layer_is_no_longer_frozen() -> None:
    """The inserted layer may later get another width than the frozen one."""
    model, editor, probe = nets.editor_of(nets.Residual)
    editor.apply(requests.Freeze("stem.0"), probe)
    editor.apply(requests.InsertLayer("stem.0", "dirac"), probe)
    editor.apply(requests.RemoveFilters("stem.0.inserted1.conv", [0, 1]), probe)
    mean = model.stem[1].running_mean.clone()
    nets.step(model, editor.optimizers[0])
    assert (model.stem[1].running_mean != mean).all()
    editor.apply(requests.Undo(2), probe)
    mean = model.stem[1].running_mean.clone()
    nets.step(model, editor.optimizers[0])
    assert torch.equal(model.stem[1].running_mean, mean)


def test_a_norm_after_a_replayed_insertion_is_no_longer_frozen() -> None:
    _, editor, probe = nets.editor_of(nets.Residual)
    editor.apply(requests.Freeze("stem.0"), probe)
    editor.apply(requests.InsertLayer("stem.0", "dirac"), probe)
    editor.apply(requests.RemoveFilters("stem.0.inserted1.conv", [0, 1]), probe)
    journal = Journal.from_data(editor.journal.to_data())
    fresh = nets.build(nets.Residual)
    journal.replay(fresh)
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.1)
    resumed = Editor(fresh, [optimizer], journal=journal)
    frozen = fresh.stem[0].weight.clone()
    nets.step(fresh, optimizer)
    assert torch.equal(fresh.stem[0].weight, frozen)
    resumed.close()


def test_blocks_of_the_same_name_have_different_filter_ids() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    block = "conv1.inserted1.conv"
    editor.apply(requests.InsertLayer("conv1", "dirac"), probe)
    editor.apply(requests.Freeze(block, [0]), probe)
    first = editor.filter_ids(block)
    editor.apply(requests.Undo(2), probe)
    editor.apply(requests.AddFilters("conv1", 2), probe)
    editor.apply(requests.InsertLayer("conv1", "dirac"), probe)
    second = editor.filter_ids(block)
    assert len(second) == model.get_submodule(block).out_channels == len(first) + 2
    assert not set(first) & set(second)
    assert editor.frozen_filters(block) == []
