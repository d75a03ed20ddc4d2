"""Patterns of user code: each is edited exactly or refused with a reason, never wrongly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from revacnn_lightning.errors import EditFailedError, EditRefusedError, SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups
from revacnn_lightning.steering.tracing.tracer import Tracer
from tests.steering import nets


class Base(nn.Module):
    """conv1 (6 filters) -> what the subclass does in ``middle`` -> conv2 -> linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(self.width, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)
        self.extra()

    width = 6

    def extra(self) -> None:
        pass

    def middle(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(F.relu(self.conv1(x)))
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


class Prelu(Base):
    def extra(self) -> None:
        self.act = nn.PReLU(6)

    def middle(self, x: Tensor) -> Tensor:
        return self.act(x - 0.5)


class LayerScale(Base):
    def extra(self) -> None:
        self.gamma = nn.Parameter(torch.rand(6, 1, 1) + 0.5)

    def middle(self, x: Tensor) -> Tensor:
        return self.gamma * x


class InstanceNorm(Base):
    def extra(self) -> None:
        self.norm = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Dropped(Base):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout2d(F.dropout(x, 0.3, self.training), 0.3, self.training)


class Noise(Base):
    def middle(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x) * self.training


class Checkpointed(Base):
    def middle(self, x: Tensor) -> Tensor:
        return checkpoint(torch.sigmoid, x, use_reentrant=False)


class Einsum(Base):
    def extra(self) -> None:
        self.mix = nn.Parameter(torch.randn(6, 6) / 3)

    def middle(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, self.mix)


class PixelShuffle(Base):
    width = 3

    def extra(self) -> None:
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, 2)


class PixelUnshuffle(Base):
    width = 24

    def middle(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 2)


class Repeated(Base):
    width = 12

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([x.repeat_interleave(2, 1)[:, ::2], x.flip(1)], 1)


class WeightNorm(Base):
    def extra(self) -> None:
        self.conv1 = nn.utils.parametrizations.weight_norm(self.conv1)
        self.conv2 = nn.utils.parametrizations.weight_norm(self.conv2)

    def middle(self, x: Tensor) -> Tensor:
        return x


class TwoOutputs(Base):
    """Maxout over pairs of adjacent channels."""

    width = 3

    def middle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, c // 2, 2, h, w).amax(2)


class SelfAttention(Base):
    def extra(self) -> None:
        self.q, self.k, self.v = (nn.Conv2d(6, 6, 1) for _ in range(3))

    def middle(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).flatten(2) for f in (self.q, self.k, self.v))  # (B, C, N)
        attention = torch.softmax(q.transpose(1, 2) @ k, -1)  # (B, N, N)
        return (v @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])


class Autocast(Base):
    def middle(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return x.to(torch.float64)


class ChannelAttention(Base):
    """CBAM: mean and maximum over the channels."""

    def extra(self) -> None:
        self.spatial = nn.Conv2d(2, 1, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(both))


class LayerNormed(Base):
    def extra(self) -> None:
        self.norm = nn.LayerNorm(6)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class OptionA(Base):
    """The shortcut of CIFAR ResNets: channels padded with zeros."""

    width = 8

    def middle(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 1, 1))


class Gated(Base):
    width = 3

    def middle(self, x: Tensor) -> Tensor:
        return F.glu(x, 1)


class Positioned(Base):
    """A position embedding for every channel and pixel."""

    def extra(self) -> None:
        self.position = nn.Parameter(torch.randn(1, 6, 8, 8))
        self.scale = nn.Parameter(torch.rand(1, 6, 1, 1) + 0.5)

    def middle(self, x: Tensor) -> Tensor:
        return self.scale * (x + self.position)


class PlainInstanceNorm(Base):
    """No parameters: only an attribute counts the channels."""

    def extra(self) -> None:
        self.norm = nn.InstanceNorm2d(6)

    def middle(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.norm.num_features
        return self.norm(x)


class Flattened(Base):
    """A position embedding, then a flatten and a linear layer in the middle of the network."""

    def extra(self) -> None:
        self.position = nn.Parameter(torch.randn(1, 6, 8, 8))
        self.mix = nn.Linear(6 * 64, 6 * 4)

    def middle(self, x: Tensor) -> Tensor:
        return self.mix((x + self.position).flatten(1)).view(-1, 6, 2, 2)


class Cropped(Base):
    def middle(self, x: Tensor) -> Tensor:
        boxes = [x.new_tensor([[1, 1, 6, 6]]) for _ in x]
        return torchvision.ops.roi_align(x, boxes, 4)


class WithInput(Base):
    width = 9

    def forward(self, x: Tensor) -> Tensor:
        made = F.relu(self.conv1(x))
        return self.fc(F.relu(self.conv2(torch.cat([made, x], 1))).mean((2, 3)))


class SliceAssign(Base):
    width = 8

    def middle(self, x: Tensor) -> Tensor:
        out = x.new_zeros(x.shape[0], 8, *x.shape[2:])
        out[:, 1:7] = x
        return out


class Positions(Base):
    """A constant per channel: a filter's position matters."""

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.arange(6.0).view(1, 6, 1, 1)


class Picked(Base):
    def middle(self, x: Tensor) -> Tensor:
        return x[:, [2, 0, 1, 5, 4, 3]]


class Spectral(Base):
    def extra(self) -> None:
        self.conv1 = nn.utils.parametrizations.spectral_norm(self.conv1)

    def middle(self, x: Tensor) -> Tensor:
        return x


class ChannelSoftmax(Base):
    def middle(self, x: Tensor) -> Tensor:
        return torch.softmax(x, 1)


class Fft(Base):
    def middle(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x, dim=1).abs().repeat(1, 2, 1, 1)[:, :6]


EXACT = [Prelu, LayerScale, InstanceNorm, Dropped, Noise, Checkpointed, Einsum, PixelShuffle,
         PixelUnshuffle, Repeated, SelfAttention, Autocast, WithInput, OptionA, Gated, Positioned,
         PlainInstanceNorm, Flattened, Cropped]  # fmt: skip
NORMALIZED_TOGETHER = [ChannelAttention, ChannelSoftmax, LayerNormed, Spectral]
REFUSED = {
    SliceAssign: "fixed size",
    Positions: "fixed size",
    Picked: "fixed indices",
    Fft: "aten._fft_r2c",
}


def difference(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("kind", EXACT)
def test_edits_are_exact(kind: type[nn.Module]) -> None:
    x = nets.images(3, seed=9)
    for request in (requests.AddFilters("conv1", 2), requests.AddFilters("conv1", split_from=1)):
        model, editor, probe = nets.editor_of(kind)
        before = nets.output(model, x)
        editor.apply(request, probe)
        assert difference(nets.output(model, x), before) < 1e-12
        nets.step(model, editor.optimizers[0])
    model, editor, probe = nets.editor_of(kind)
    editor.apply(requests.RemoveFilters("conv1", [1]), probe)  # the output is compared inside
    nets.step(model, editor.optimizers[0])
    editor.apply(requests.Undo(), probe)
    nets.step(model, editor.optimizers[0])


def test_weight_norm_keeps_the_function() -> None:
    """Zero columns keep |v|; where columns are divided or removed, the gain is rescaled."""
    x = nets.images(3, seed=9)
    model, editor, probe = nets.editor_of(WeightNorm)
    before = nets.output(model, x)
    editor.apply(requests.AddFilters("conv1", 2), probe)
    assert difference(nets.output(model, x), before) < 1e-12
    editor.apply(requests.RemoveFilters("conv1", [1]), probe)
    before = nets.output(model, x)
    editor.apply(requests.AddFilters("conv1", split_from=1), probe)
    assert difference(nets.output(model, x), before) < 1e-12
    nets.step(model, editor.optimizers[0])


@pytest.mark.parametrize("kind", NORMALIZED_TOGETHER)
def test_removal_of_channels_normalized_together_is_announced(kind: type[nn.Module]) -> None:
    model, editor, probe = nets.editor_of(kind)
    plan = editor.apply(requests.RemoveFilters("conv1", [1]), probe).plan
    assert any("change as well" in note for note in plan.notes)
    nets.step(model, editor.optimizers[0])
    assert "conv1" not in editor.refusals(probe)


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_untraceable_patterns_are_refused_with_a_reason(kind: type[nn.Module]) -> None:
    model, editor, probe = nets.editor_of(kind)
    before = nets.checksum(model, *editor.optimizers)
    for request in (requests.RemoveFilters("conv1", [1]), requests.AddFilters("conv1")):
        with pytest.raises(EditRefusedError, match=REFUSED[kind]):
            editor.apply(request, probe)
    assert nets.checksum(model, *editor.optimizers) == before
    assert "conv1" in editor.refusals(probe)


def test_a_view_that_pairs_neighbors_is_exact_or_rolled_back() -> None:
    """(c // 2, 2) is indistinguishable from (groups, c // groups)."""
    x = nets.images(3, seed=9)
    for request in (requests.RemoveFilters("conv1", [1]), requests.AddFilters("conv1")):
        model, editor, probe = nets.editor_of(TwoOutputs)
        before = nets.output(model, x)
        try:
            editor.apply(request, probe)
        except SteeringError:
            assert torch.equal(nets.output(model, x), before)
        else:
            if isinstance(request, requests.AddFilters):
                assert difference(nets.output(model, x), before) < 1e-12


class Branches(nn.Module):
    """Runs one of two convs, depending on an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.even, self.odd = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)
        self.never = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor, odd: bool = False) -> Tensor:
        return self.fc((self.odd if odd else self.even)(self.stem(x)).mean((2, 3)))


def test_traces_of_several_forwards_are_merged() -> None:
    model = nets.build(Branches)
    x = nets.images()
    editor = Editor(model, [torch.optim.Adam(model.parameters())])
    probe = ForwardProbe([partial(model, x), partial(model, x, odd=True)])
    assert set(editor.refusals(probe)) == {"never", "fc"}
    with pytest.raises(EditRefusedError, match="never was not run"):
        editor.apply(requests.AddFilters("never"), probe)
    before = model(x), model(x, odd=True)
    sum(before).sum().backward()  # "never" gets no gradient
    editor.apply(requests.AddFilters("stem", confirmed=True), probe)
    assert difference(model(x), before[0]) < 1e-12
    assert difference(model(x, odd=True), before[1]) < 1e-12


def test_the_plan_notes_layers_that_never_ran() -> None:
    model = nets.build(Branches)
    x = nets.images()
    model(x).sum().backward()
    plan = Editor(model).plan(
        requests.RemoveFilters("stem", [0]), ForwardProbe([partial(model, x)])
    )
    assert any("odd" in note and "never" in note for note in plan.notes)


def test_tracing_has_no_side_effects() -> None:
    model, editor, _ = nets.editor_of(nets.Auxiliary)
    nets.step(model, editor.optimizers[0])
    model.train()
    model.stem[1].eval()  # a batch norm that the user froze
    before = nets.checksum(model, *editor.optimizers)
    hooks = len(torch.nn.modules.module._global_forward_hooks)

    def noisy() -> object:
        torch.rand(3)
        return model(nets.images())

    editor.channel_groups(ForwardProbe([noisy]))
    assert nets.checksum(model, *editor.optimizers) == before
    assert len(torch.nn.modules.module._global_forward_hooks) == hooks


def test_hooks_are_removed_after_an_exception() -> None:
    model = nets.build(nets.Plain)
    hooks = len(torch.nn.modules.module._global_forward_pre_hooks)
    before = nets.checksum(model)

    def broken() -> Tensor:
        model.conv1(nets.images())
        raise KeyError("label")

    with pytest.raises(SteeringError, match="KeyError"):
        trace_channel_groups(model, ForwardProbe([broken]))
    assert len(torch.nn.modules.module._global_forward_pre_hooks) == hooks
    assert nets.checksum(model) == before


def test_sharded_parameters_are_refused() -> None:
    class Shard(torch.Tensor):
        pass

    model = nets.build(nets.Plain)
    sharded = nn.Parameter(model.conv1.weight.detach().as_subclass(Shard))
    model.conv1.weight = sharded
    assert type(model.conv1.weight) is not nn.Parameter
    tracer = Tracer(model)
    assert any("Shard" in reason for _, reason in tracer.trace.fixed)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (partial(nn.Conv1d, kernel_size=3), (2, 3, 9)),
        (partial(nn.Conv3d, kernel_size=1), (2, 3, 4, 4, 4)),
    ],
)
def test_convs_of_other_dimensions(make: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(make(3, 6), nn.ReLU(), make(6, 4)).double()
    x = torch.randn(*shape, dtype=torch.float64)
    x = F.pad(x, (2, 2))
    editor, before = Editor(model), model(x)
    editor.apply(requests.AddFilters("0"), ForwardProbe([partial(model, x)]))
    assert difference(model(x), before) < 1e-12


def test_half_precision_is_compared_with_its_rounding_unit() -> None:
    model = nets.build(nets.Residual).float()
    x = nets.images().float()

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    editor = Editor(model, [torch.optim.Adam(model.parameters())])
    probe = ForwardProbe([forward])
    assert editor.channel_groups(probe).rounding_unit == torch.finfo(torch.bfloat16).eps
    for request in (
        requests.AddFilters("stem.0"),
        requests.RemoveFilters("a.0.0", [1]),
        requests.InsertLayer("a.1"),
    ):
        editor.apply(request, probe)
    assert model.stem[0].weight.dtype == torch.float32


def test_verification_detects_a_wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a flip is treated as a copy, columns are misplaced, which changes the output."""
    from revacnn_lightning.steering.tracing.rules import dispatch

    class Flipped(Base):
        def middle(self, x: Tensor) -> Tensor:
            return x.flip(1)

    monkeypatch.setattr(dispatch, "COPIES", dispatch.COPIES | {"flip"})
    model, editor, probe = nets.editor_of(Flipped)
    before = nets.checksum(model, *editor.optimizers)
    for request in (requests.RemoveFilters("conv1", [1]), requests.AddFilters("conv1", 1, 1)):
        with pytest.raises(EditFailedError, match="differs"):
            editor.apply(request, probe)
    assert nets.checksum(model, *editor.optimizers) == before
