"""Equal parts of channels stay equal, and as few filters as possible are edited for it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from benchmarks.steering_models import eval_output, zeroed_output
from revacnn_lightning import AddFilters, EditRefusedError, RemoveFilters, Undo
from revacnn_lightning.steering import Editor
from tests.steering import nets


class Shuffles(nn.Module):
    """Units like those of ShuffleNetV2: half of the channels skips each."""

    def __init__(self, units: int = 4, width: int = 8) -> None:
        super().__init__()
        self.left, self.right = (nets.conv_bn(3, width) for _ in range(2))
        self.units = nn.ModuleList(nets.conv_bn(width, width) for _ in range(units))
        self.fc = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shuffled(torch.cat([self.left(x), self.right(x)], 1))
        for unit in self.units:
            kept, read = x.chunk(2, dim=1)
            x = self.shuffled(torch.cat([kept, unit(read)], 1))
        return self.fc(x.mean((2, 3)))

    def shuffled(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class UnevenParts(nn.Module):
    """EdgeNeXt's mixer: the parts of a chunk, of which the last is smaller, and heads over both."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        size = -(-width // 3)
        self.convs = nn.ModuleList(nn.Conv2d(size, size, 1, groups=size) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.stem(x).chunk(3, dim=1)
        first = self.convs[0](first)
        x = torch.cat([first, self.convs[1](first + second), third], 1)
        b, c, h, w = x.shape
        x = x.reshape(b, c, h * w).permute(0, 2, 1)
        q, k, v = self.qkv(x).reshape(b, h * w, 3, 2, -1).permute(2, 0, 3, 4, 1).unbind(0)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.proj(mixed.permute(0, 3, 1, 2).reshape(b, h * w, c))
        return self.fc(x.mean(1))


def editor_of(kind: type[nn.Module]) -> tuple[nn.Module, Editor]:
    model = nets.build(kind)
    return model, Editor(model)


def test_a_series_of_shuffles_loses_one_filter_of_each_unit() -> None:
    model, editor = editor_of(Shuffles)
    probe, unseen = nets.probe_of(model), nets.images(seed=5)
    before = eval_output(model, unseen)
    request = RemoveFilters("units.2.0", [3])
    plan = editor.plan(request, probe)
    removed = {each.layer: len(each.filters) for each in plan.filter_changes}
    assert set(removed.values()) == {1}
    assert "parts of equal size" in plan.coupling
    assert plan.is_choice
    expected = zeroed_output(model, plan, unseen)
    editor.apply(request, probe)
    assert (eval_output(model, unseen) - expected).abs().max() < 1e-12
    editor.apply(Undo(), probe)
    assert torch.equal(eval_output(model, unseen), before)


@pytest.mark.parametrize("index", range(8))
def test_what_a_shuffle_removes_is_exact_or_refused(index: int) -> None:
    """No removal is rolled back: the order of the channels afterwards is known before."""
    model, editor = editor_of(Shuffles)
    probe, unseen = nets.probe_of(model), nets.images(seed=5)
    for layer in ("right.0", "units.1.0"):
        request, refusal = RemoveFilters(layer, [index]), ""
        try:
            plan = editor.plan(request, probe)
        except EditRefusedError as error:
            refusal = str(error)
        if refusal:
            assert "parts of equal size" in refusal
            continue
        expected = zeroed_output(model, plan, unseen)
        editor.apply(request, probe)
        assert (eval_output(model, unseen) - expected).abs().max() < 1e-12
        editor.apply(Undo(), probe)


@pytest.mark.parametrize(("width", "added", "removed"), [(14, 2, 1), (22, 2, 0), (30, 2, 4)])
def test_channels_behind_a_series_of_shuffles_keep_the_parts_of_all(
    width: int, added: int, removed: int
) -> None:
    """The order behind one shuffle decides in which part a channel is behind the next one."""
    model = nets.build(partial(Shuffles, 5, width))
    editor, probe, unseen = Editor(model), nets.probe_of(model), nets.images(seed=5)
    before = eval_output(model, unseen)
    layer = model.get_submodule("units.1.0")
    editor.apply(AddFilters("units.1.0"), probe)
    assert layer.out_channels == width + added
    assert (eval_output(model, unseen) - before).abs().max() < 1e-12
    editor.apply(Undo(), probe)
    request = RemoveFilters("units.1.0", [3])
    if not removed:
        with pytest.raises(EditRefusedError, match="parts of equal size"):
            editor.plan(request, probe)
        return
    expected = zeroed_output(model, editor.plan(request, probe), unseen)
    editor.apply(request, probe)
    assert layer.out_channels == width - removed
    assert (eval_output(model, unseen) - expected).abs().max() < 1e-12


def test_growth_that_a_series_of_shuffles_would_carry_elsewhere_is_refused() -> None:
    model, editor = editor_of(Shuffles)
    with pytest.raises(EditRefusedError, match="divided into parts of equal size"):
        editor.plan(AddFilters("units.1.0"), nets.probe_of(model))


def test_uneven_parts_and_heads_get_as_few_filters_as_possible() -> None:
    model, editor = editor_of(UnevenParts)
    probe, unseen = nets.probe_of(model), nets.images(seed=5)
    before = eval_output(model, unseen)
    editor.apply(AddFilters("stem", confirmed=True), probe)
    assert model.get_submodule("stem").out_channels == 10
    assert [conv.out_channels for conv in model.convs] == [4, 4]
    assert eval_output(model, unseen).shape == before.shape
    editor.apply(Undo(), probe)
    assert torch.equal(eval_output(model, unseen), before)
