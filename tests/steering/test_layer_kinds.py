"""Every edit of every kind of layer with filters is exact, and undone bit by bit."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from benchmarks.steering_models import eval_output, zeroed_output
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry.unit_layers import filter_count
from tests.layer_kinds import KINDS, Kind
from tests.steering import nets

EXACT = 1e-10
LAYERS = [(kind, layer) for kind, each in KINDS.items() for layer in each.layers]
each_layer = pytest.mark.parametrize(("name", "layer"), LAYERS)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, seed: int) -> None:
    model.train()
    optimizer.zero_grad()
    torch.manual_seed(seed)
    output = model(kind.batch(seed))
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    optimizer.step()


def trained(name: str) -> tuple[nn.Module, Editor, ForwardProbe, Tensor]:
    """Return a network that has trained with Adam, its editor, and an unseen batch."""
    kind = KINDS[name]
    model = kind.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for seed in range(3):
        train(model, optimizer, kind, seed)
    probe = ForwardProbe([partial(model, kind.batch(10))])
    return model, Editor(model, [optimizer]), probe, kind.batch(20)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def edits_of(layer: str) -> list[requests.Edit]:
    return [
        requests.RemoveFilters(layer, [1]),
        requests.AddFilters(layer, 2),
        requests.AddFilters(layer, split_from=0),
        requests.InsertLayer(layer),
        requests.InsertLayer(layer, "dirac"),
        requests.Freeze(layer, [1, 2]),
        requests.ScaleLearningRate(layer, 0.1),
    ]


@each_layer
def test_edits_are_exact_on_an_unseen_batch(name: str, layer: str) -> None:
    model, editor, probe, unseen = trained(name)
    before = eval_output(model, unseen)
    for request in edits_of(layer):
        plan = editor.plan(request, probe)
        removal = isinstance(request, requests.RemoveFilters)
        expected = zeroed_output(model, plan, unseen) if removal else before
        editor.apply(request, probe)
        assert difference(eval_output(model, unseen), expected) < EXACT, request
        editor.apply(requests.Undo(), probe)
        assert torch.equal(eval_output(model, unseen), before)


@each_layer
def test_undo_restores_every_bit_of_model_and_optimizer(name: str, layer: str) -> None:
    model, editor, probe, _ = trained(name)
    before = nets.checksum(model, *editor.optimizers)
    values = [
        requests.MergeFilters(layer, [0, 2]),
        requests.Reinitialize(layer, [1]),
        requests.SetFilter(layer, 0, [1, 2], [1.0, 3.0]),
    ]
    for request in [*edits_of(layer), *values]:
        editor.apply(request, probe)
        editor.apply(requests.Undo(), probe)
        assert nets.checksum(model, *editor.optimizers) == before, request


@each_layer
def test_optimizer_state_of_the_others_is_kept_and_training_goes_on(name: str, layer: str) -> None:
    model, editor, probe, _ = trained(name)
    (optimizer,) = editor.optimizers
    module = model.get_submodule(layer)
    dim = editor.channel_groups(probe).locate(int(editor.channel_groups(probe).filters[layer][0]))[
        1
    ]
    state = optimizer.state[module.weight]["exp_avg"].clone()
    width = filter_count(module)
    plan = editor.apply(requests.RemoveFilters(layer, [1]), probe).plan
    move = next(move for move in plan.filters if move.layer == layer)
    (kept,) = [edit for edit in plan.tensors if (edit.tensor, edit.dim) == (move.tensor, move.dim)]
    order = torch.cat([torch.arange(a, b) for a, b in kept.runs])
    rest = [edit for edit in plan.tensors if edit.tensor == move.tensor and edit is not kept]
    expected = state.index_select(dim, order)
    for edit in rest:
        other = torch.cat([torch.arange(a, b) for a, b in edit.runs])
        expected = expected.index_select(edit.dim, other)
    assert torch.equal(optimizer.state[module.weight]["exp_avg"], expected)
    assert filter_count(module) < width
    editor.apply(requests.AddFilters(layer), probe)
    for seed in range(2):
        train(model, optimizer, KINDS[name], seed)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@each_layer
def test_frozen_filters_stay_and_the_others_train(name: str, layer: str) -> None:
    model, editor, probe, _ = trained(name)
    module = model.get_submodule(layer)
    editor.apply(requests.Freeze(layer, [1]), probe)
    if module.bias is not None:
        kept, bias = module.bias[1].item(), module.bias.detach().clone()
        train(model, editor.optimizers[0], KINDS[name], 5)
        assert module.bias[1].item() == kept
        assert not torch.equal(module.bias, bias)
    assert editor.frozen_filters(layer) == [1]


@pytest.mark.parametrize("name", KINDS)
def test_replayed_edits_give_the_same_network(name: str) -> None:
    kind = KINDS[name]
    model, editor, probe, unseen = trained(name)
    for layer in kind.layers:
        editor.apply(requests.AddFilters(layer), probe)
        editor.apply(requests.InsertLayer(layer), probe)
    editor.apply(requests.RemoveFilters(kind.layers[0], [0]), probe)
    again = kind.build(seed=3)
    editor.journal.replay(again)
    again.load_state_dict(model.state_dict())
    assert torch.equal(eval_output(again, unseen), eval_output(model, unseen))


@pytest.mark.parametrize("name", KINDS)
def test_the_output_layer_is_refused_by_name(name: str) -> None:
    _, editor, probe, _ = trained(name)
    assert editor.refusals(probe) == {"fc": "filters of fc reach the model's output"}
    with pytest.raises(EditRefusedError, match="fc reach the model's output"):
        editor.apply(requests.AddFilters("fc"), probe)


@pytest.mark.parametrize("name", KINDS)
def test_edges_lead_from_layer_to_layer(name: str) -> None:
    _, editor, probe, _ = trained(name)
    edges = editor.edges(probe)
    layers = [*KINDS[name].layers, "fc"]
    assert all((a, b) in edges for a, b in itertools.pairwise(layers))


class Attention(nn.Module):
    """Self-attention whose queries, keys and values come from one linear layer, as in timm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.qkv, self.proj = nn.Linear(4, 8), nn.Linear(8, 24), nn.Linear(8, 6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.first(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        x = torch.nn.functional.scaled_dot_product_attention(*qkv.unbind(0))
        return self.fc(self.proj(x.transpose(1, 2).flatten(2)).mean(1))


class TorchAttention(nn.Module):
    """torch's own attention, which reads the weight of its output projection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc = nn.Linear(4, 8), nn.Linear(8, 2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.fc(self.attention(x, x, x, need_weights=False)[0].mean(1))


def attention(kind: type[nn.Module]) -> tuple[nn.Module, Editor, ForwardProbe, Tensor]:
    torch.manual_seed(0)
    model = kind().double()
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    return model, Editor(model), ForwardProbe([partial(model, x)]), x


def test_the_projections_of_an_attention_are_refused_by_name() -> None:
    model, editor, probe, x = attention(Attention)
    refusals = editor.refusals(probe)
    assert refusals.keys() == {"qkv", "fc"}
    assert "attention" in refusals["qkv"]
    before = eval_output(model, x)
    for request in (requests.AddFilters("proj"), requests.AddFilters("first")):
        editor.apply(request, probe)
        assert difference(eval_output(model, x), before) < EXACT


def test_what_an_attention_reads_grows_by_a_channel_of_each_head() -> None:
    model, editor, probe, x = attention(TorchAttention)
    before = nets.checksum(model)
    with pytest.raises(EditRefusedError, match="scores of attention sum over them"):
        editor.apply(requests.AddFilters("first"), probe)
    assert nets.checksum(model) == before
    editor.apply(requests.AddFilters("first", confirmed=True), probe)
    assert (model.first.out_features, model.attention.embed_dim) == (10, 10)
    output = eval_output(model, x)
    editor.apply(requests.AddFilters("attention.out_proj"), probe)
    assert difference(eval_output(model, x), output) < EXACT


def test_a_linear_layer_of_one_unit_grows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1), nn.Tanh(), nn.Linear(1, 2)).double()
    editor = Editor(model)
    x = torch.randn(3, 4).double()
    before = eval_output(model, x)
    editor.apply(requests.AddFilters("0", 3), ForwardProbe([partial(model, x)]))
    assert (model[0].out_features, model[2].in_features) == (4, 4)
    assert difference(eval_output(model, x), before) < EXACT
