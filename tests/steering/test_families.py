"""A small member of each family of published CNNs, checked independently of the engine."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import steering_fuzz
from benchmarks.steering_models import (
    SMALL,
    eval_output,
    make_seeded,
    randomize_norms,
    train_step,
    zeroed_output,
)
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe

PIXELS = 32


def subject(name: str) -> tuple[nn.Module, Editor, ForwardProbe, Tensor]:
    model = make_seeded(SMALL[name], 0).double()
    x = torch.randn(2, 3, PIXELS, PIXELS, dtype=torch.float64)
    randomize_norms(model, x)
    unseen = torch.randn(2, 3, PIXELS, PIXELS, dtype=torch.float64)
    return model, Editor(model), ForwardProbe([partial(model, x)]), unseen


@pytest.mark.parametrize("name", SMALL)
def test_removal_and_growth_are_exact(name: str) -> None:
    model, editor, probe, unseen = subject(name)
    convs = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    before = eval_output(model, unseen)
    exact, reasons = 0, []
    for layer in random.Random(name).sample(convs, 5):
        width = model.get_submodule(layer).out_channels
        for request in (
            requests.RemoveFilters(layer, [width // 2]),
            requests.AddFilters(layer),
            requests.AddFilters(layer, split_from=0),
        ):
            try:
                plan = editor.plan(request, probe)
            except EditRefusedError as error:
                reasons.append(str(error))
                continue
            removal = isinstance(request, requests.RemoveFilters)
            expected = zeroed_output(model, plan, unseen) if removal else before
            editor.apply(request, probe)
            difference = (eval_output(model, unseen) - expected).abs().max() / expected.abs().max()
            assert difference.item() < 1e-8
            editor.apply(requests.Undo(), probe)
            exact += 1
    assert torch.equal(eval_output(model, unseen), before)
    assert exact >= 6
    assert all("output" in reason or "at least one" in reason for reason in reasons)


class Recurrent(nn.Module):
    """The columns of a map as a sequence, read by a recurrent layer, as in CRNN."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.recurrent = kind(6 * 8, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (2 if options.get("bidirectional") else 1), 4)

    def forward(self, x: Tensor) -> Tensor:
        sequence = self.conv(x).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.recurrent(sequence)[0][:, -1])


class Circular(nn.Sequential):
    """Two layers with circular padding, of an image and of a signal."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=(2, 1), padding_mode="circular"), nn.ReLU(),
            nn.Flatten(2),
            nn.Conv1d(8, 4, 3, padding=1, padding_mode="circular"),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (lambda: Recurrent(nn.LSTM), "conv"),
        (lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True), "conv"),
        (lambda: Recurrent(nn.RNN), "conv"),
        (Circular, "0"),
        (Circular, "2"),
    ],
)
def test_edits_before_recurrent_layers_and_circular_padding_are_exact(
    build: Callable[[], nn.Module], layer: str
) -> None:
    torch.manual_seed(0)
    model = build().double()
    x, unseen = torch.randn(2, 2, 3, 8, 8).double()
    editor, probe = Editor(model), ForwardProbe([partial(model, x)])
    for request in (
        requests.RemoveFilters(layer, [1, 4]),
        requests.AddFilters(layer, 2),
        requests.AddFilters(layer, split_from=0),
    ):
        before, plan = eval_output(model, unseen), editor.plan(request, probe)
        removal = isinstance(request, requests.RemoveFilters)
        expected = zeroed_output(model, plan, unseen) if removal else before
        editor.apply(request, probe)
        assert (eval_output(model, unseen) - expected).abs().max() < 1e-10
        editor.apply(requests.Undo(), probe)
        assert torch.equal(eval_output(model, unseen), before)
    if isinstance(model, Recurrent):
        assert model.recurrent.input_size == 48


@pytest.mark.parametrize("name", ["resnext", "shufflenet", "regnet_y"])
def test_random_edits(name: str) -> None:
    tally = steering_fuzz.fuzz_network(name, 12, seed=3, advance=lambda done: None)
    assert not tally.errors
    assert tally.counts["applied"] >= 12
    assert tally.counts["undone"] > 0
    assert tally.counts["replays"] > 0


def test_auxiliary_heads_are_edited_too() -> None:
    """A head that only runs in training mode reads the edited channels (Inception)."""
    from torchvision.models.googlenet import GoogLeNet

    model = make_seeded(partial(GoogLeNet, num_classes=10, aux_logits=True, init_weights=False), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, y = torch.randn(2, 3, 64, 64), torch.tensor([1, 2])
    editor = Editor(model, [optimizer])
    probe = ForwardProbe([partial(model, x)])
    plan = editor.apply(requests.RemoveFilters("inception4a.branch1.conv", [3]), probe).plan
    assert "aux1.conv.conv.weight" in {edit.tensor for edit in plan.tensors}
    editor.apply(requests.AddFilters("aux2.conv.conv"), probe)
    train_step(model, optimizer, x, y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["resnet", "densenet", "mobilenet_v2", "efficientnet"])
def test_removal_agrees_with_torch_pruning(name: str) -> None:
    """Where torch-pruning is known to be correct, both return the same network."""
    pruning = pytest.importorskip("torch_pruning")
    edited, editor, probe, unseen = subject(name)
    pruned = copy.deepcopy(edited).eval()
    convs = [n for n, m in edited.named_modules() if isinstance(m, nn.Conv2d)]
    layer = convs[len(convs) // 2]
    graph = pruning.DependencyGraph().build_dependency(pruned, example_inputs=unseen)
    conv = pruned.get_submodule(layer)
    prune = (
        pruning.prune_depthwise_conv_out_channels
        if conv.groups == conv.in_channels > 1
        else pruning.prune_conv_out_channels
    )
    graph.get_pruning_group(conv, prune, idxs=[2]).prune()
    editor.apply(requests.RemoveFilters(layer, [2]), probe)
    state, expected = edited.state_dict(), pruned.state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
    assert torch.allclose(
        eval_output(edited, unseen), eval_output(pruned, unseen), rtol=1e-9, atol=1e-12
    )
