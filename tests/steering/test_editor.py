"""Adding and removing filters is exact on every conv of every small network."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from tests.steering import nets

CASES = [
    (kind, name)
    for kind in nets.NETS.values()
    for name, module in kind().named_modules()
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and name != "aux"
]
each_conv = pytest.mark.parametrize(
    ("kind", "layer"), CASES, ids=lambda v: getattr(v, "__name__", v)
)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@each_conv
def test_new_filters_keep_the_function(kind: type[nn.Module], layer: str) -> None:
    model, editor, probe = nets.editor_of(kind)
    x = nets.images(3, seed=9)  # not the verifying batch
    before = nets.output(model, x)
    width = model.get_submodule(layer).out_channels
    outcome = editor.apply(requests.AddFilters(layer, count=2), probe)
    assert model.get_submodule(layer).out_channels > width
    assert difference(nets.output(model, x), before) < 1e-12
    assert outcome.output_change is not None
    assert outcome.output_change < 1e-12


@each_conv
def test_split_filters_keep_the_function(kind: type[nn.Module], layer: str) -> None:
    model, editor, probe = nets.editor_of(kind)
    before = nets.output(model)
    editor.apply(requests.AddFilters(layer, count=2, split_from=1), probe)
    assert difference(nets.output(model), before) < 1e-12


@each_conv
def test_adding_and_removing_a_filter_restores_the_weights(
    kind: type[nn.Module], layer: str
) -> None:
    """A new filter has zero outgoing weights, so removing it again restores the network."""
    model, editor, probe = nets.editor_of(kind)
    state = copy.deepcopy(model.state_dict())
    plan = editor.apply(requests.AddFilters(layer), probe).plan
    move = next(m for m in plan.filters if m.layer == layer)
    editor.apply(requests.RemoveFilters(layer, [move.new[0]]), probe)
    after = model.state_dict()
    assert [*after] == [*state]
    assert all(torch.equal(after[name], state[name]) for name in state)


@each_conv
def test_removal_equals_zeroing_the_outgoing_columns(kind: type[nn.Module], layer: str) -> None:
    model, editor, probe = nets.editor_of(kind)
    reference = copy.deepcopy(model)
    plan = editor.apply(requests.RemoveFilters(layer, [1]), probe).plan
    with torch.no_grad():
        for edit in plan.tensors:
            if edit.fill == "zero":
                kept = [i for a, b in edit.runs for i in range(a, b)]
                gone = [i for i in range(edit.size) if i not in kept]
                dict(reference.named_parameters())[edit.tensor].index_fill_(
                    edit.dim, torch.tensor(gone), 0.0
                )
    x = nets.images(3, seed=9)
    assert difference(nets.output(model, x), nets.output(reference, x)) < 1e-12


@each_conv
def test_training_continues_after_an_edit(kind: type[nn.Module], layer: str) -> None:
    model, editor, probe = nets.editor_of(kind)
    (optimizer,) = editor.optimizers
    parameters = {id(p) for p in model.parameters()}
    for _ in range(2):
        nets.step(model, optimizer)
        editor.apply(requests.AddFilters(layer), probe)
        nets.step(model, optimizer)
        editor.apply(requests.RemoveFilters(layer, [0]), probe)
    nets.step(model, optimizer)
    assert {id(p) for p in model.parameters()} == parameters
    for parameter in model.parameters():
        for value in optimizer.state[parameter].values():
            assert value.ndim == 0 or value.shape == parameter.shape


def test_the_plan_lists_coupled_filters() -> None:
    _, editor, probe = nets.editor_of(nets.Residual)
    plan = editor.plan(requests.RemoveFilters("stem.0", [3]), probe)
    assert {s.layer for s in plan.filter_changes} == {"stem.0", "a.1", "b.1"}
    assert all(s.filters == [3] for s in plan.filter_changes)
    assert "a.1" in plan.coupling
    _, editor, probe = nets.editor_of(nets.Grouped)
    plan = editor.plan(requests.RemoveFilters("grouped.0", [1]), probe)
    assert plan.coupling.endswith("one per group: 4")
    assert {tuple(s.filters) for s in plan.filter_changes} == {
        (1, 4, 7, 10),
        (2, 3, 8, 9, 14, 15, 20, 21),
    }


def test_the_plan_counts_parameters() -> None:
    model, editor, probe = nets.editor_of(nets.Residual)
    plan = editor.apply(requests.RemoveFilters("stem.0", [3, 4]), probe).plan
    assert plan.parameters_after == sum(p.numel() for p in model.parameters())
    assert plan.parameters_before > plan.parameters_after


def test_filter_ids_are_permanent() -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    assert editor.filter_ids("conv1") == [0, 1, 2, 3, 4, 5]
    editor.apply(requests.RemoveFilters("conv1", [1, 4]), probe)
    assert editor.filter_ids("conv1") == [0, 2, 3, 5]
    editor.apply(requests.AddFilters("conv1", split_from=1), probe)
    assert editor.filter_ids("conv1") == [0, 2, 6, 3, 5]
    editor.apply(requests.RemoveFilters("conv1", [2]), probe)
    editor.apply(requests.AddFilters("conv1"), probe)
    assert editor.filter_ids("conv1") == [0, 2, 3, 5, 7]
    assert editor.version == 4


def test_silent_new_filters_are_reinitialized() -> None:
    """A new filter that is negative on the whole batch is silent after the ReLU."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 1)
            self.conv2 = nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv2(torch.relu(self.conv1(x)))

    for seed in range(20):
        torch.manual_seed(seed)
        model = Gate()
        x = torch.full((1, 3, 1, 1), 1.0)  # one pixel: silent for about half of all filters
        editor = Editor(model)
        editor.journal.version = seed  # the seed of the initialization
        probe = ForwardProbe([partial(model, x)])
        plan = editor.apply(requests.AddFilters("conv1"), probe).plan
        assert not plan.notes
        assert (model.conv1(x) > 0)[0, -1].all()


def test_edges_are_the_topology() -> None:
    _, editor, probe = nets.editor_of(nets.Residual)
    edges = set(editor.edges(probe))
    assert ("stem.0", "a.0.0") in edges
    assert ("stem.0", "b.0.0") in edges
    assert ("a.1", "b.0.0") in edges
    assert ("a.0.0", "b.0.0") not in edges


def test_refusals_state_the_reason() -> None:
    _, editor, probe = nets.editor_of(nets.Auxiliary)
    refusals = editor.refusals(probe)
    assert set(refusals) == {"aux", "fc"}
    assert all("output" in reason for reason in refusals.values())
    with pytest.raises(EditRefusedError, match="output"):
        editor.apply(requests.AddFilters("aux"), probe)


def test_planning_changes_nothing() -> None:
    model, editor, probe = nets.editor_of(nets.Shuffle)
    nets.step(model, editor.optimizers[0])
    before = nets.checksum(model, *editor.optimizers, journal=editor.journal)
    editor.plan(requests.RemoveFilters("left.0", [1]), probe)
    editor.plan(requests.AddFilters("first.0"), probe)
    editor.edges(probe)
    assert nets.checksum(model, *editor.optimizers, journal=editor.journal) == before


def test_edits_keep_requires_grad_memory_format_and_gradients() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    model.to(memory_format=torch.channels_last)
    model.conv1.requires_grad_(False)
    nets.step(model, editor.optimizers[0])
    gradient = model.conv2.weight.grad.clone()
    editor.apply(requests.RemoveFilters("conv2", [2]), probe)
    editor.apply(requests.AddFilters("conv1"), probe)
    assert not model.conv1.weight.requires_grad
    assert model.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    kept = [0, 1, 3, 4, 5, 6, 7]
    assert torch.equal(model.conv2.weight.grad[:, :6], gradient[kept])
    assert model.conv2.weight.grad[:, 6:].eq(0).all()


# ---------------------------------------------------------------------- weights in two roles


class TiedDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.last = nn.Conv2d(2, 5, 3), nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.encoder(x).relu()
        return self.last(nn.functional.conv_transpose2d(code, self.encoder.weight))


def test_a_decoder_with_the_weight_of_the_encoder_does_not_hide_its_filters() -> None:
    torch.manual_seed(0)
    model = TiedDecoder().double()
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        model.encoder.weight[4] = 0
        model.encoder.bias[4] = -1
        before = model(images)
        probe = ForwardProbe([lambda: model(images)])
        Editor(model).apply(requests.RemoveFilters("encoder", [4]), probe)
        assert model.encoder.out_channels == 4
        assert difference(model(images), before) < 1e-12
