"""Sizes kept in attributes and used in ``forward``: one small network per pattern."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Journal
from revacnn_lightning.steering.tracing.traced_int import TracedInt, temporary_traced_ints
from tests.steering import nets


class Split(nn.Module):
    """Res2Net: equal pieces, whose width is an attribute, each with a conv of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.conv1 = nn.Conv2d(3, 12, 1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.conv2 = nn.Conv2d(12, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(F.relu(self.conv1(x)), self.width, 1)
        made = [pieces[0]]
        for conv, piece in zip(self.convs, pieces[1:], strict=True):
            made.append(F.relu(conv(piece + made[-1])))
        return self.fc(F.relu(self.conv2(torch.cat(made, 1))).mean((2, 3)))


class UnequalSplit(nn.Module):
    """MixNet, FasterNet: a list of sizes, and two attributes in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [5, 3]
        self.touched, self.untouched = 2, 6
        self.conv1 = nn.Conv2d(3, 8, 1)
        self.left = nn.Conv2d(5, 5, 3, padding=1)
        self.right = nn.Conv2d(3, 3, 5, padding=2)
        self.partial = nn.Conv2d(2, 2, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(F.relu(self.conv1(x)), self.sizes, dim=1)
        x = torch.cat([self.left(a), self.right(b)], 1)
        a, b = x.split([self.touched, self.untouched], 1)
        return self.fc(torch.cat([self.partial(a), b], 1).relu().mean((2, 3)))


class Paths(nn.Module):
    """Selective kernel: (b, paths, channels, h, w) with both sizes in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.paths, self.channels = 2, 4
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(4, 8, 1)
        self.conv2 = nn.Conv2d(4, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        x = F.relu(self.conv1(x)).view(b, self.paths, self.channels, h, w)
        gate = self.gate(x.sum(1).mean((2, 3), keepdim=True))
        gate = gate.view(b, self.paths, self.channels, 1, 1).softmax(1)
        return self.fc(F.relu(self.conv2((x * gate).sum(1))).mean((2, 3)))


class Ghost(nn.Module):
    """GhostNet: channels and cheap copies of them, cropped to a number in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.out_chs = 7
        self.primary = nn.Conv2d(3, 4, 1)
        self.cheap = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.conv2 = nn.Conv2d(7, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.primary(x))
        x = torch.cat([x, F.relu(self.cheap(x))], 1)
        return self.fc(F.relu(self.conv2(x[:, : self.out_chs, :, :])).mean((2, 3)))


class DualPath(nn.Module):
    """DPN: the first channels feed one conv, the rest another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = 5
        self.conv1 = nn.Conv2d(3, 8, 1)
        self.a = nn.Conv2d(5, 4, 1)
        self.b = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        return self.fc((self.a(x[:, : self.first]) + self.b(x[:, self.first :])).mean((2, 3)))


class Flat(nn.Module):
    """view(-1, self.features), where features = 4 positions x 6 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = 24
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.conv1(x)), 2)
        return self.fc(x.reshape(-1, self.features))


class Functional(nn.Module):
    """A functional depthwise conv and a constant: groups and a new tensor of ``dim`` channels."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = 6
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(6, 1, 3, 3) / 3)
        self.conv2 = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.relu(self.conv1(x)), self.kernel, padding=1, groups=self.dim)
        x = x + x.new_ones(1, self.dim, 1, 1)
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


class Halves(nn.Module):
    """CSP: the width is an attribute that ``forward`` divides by two."""

    def __init__(self) -> None:
        super().__init__()
        self.expanded = 8
        self.conv1 = nn.Conv2d(3, 8, 1)
        self.a = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv1(x).split(self.expanded // 2, dim=1)
        return self.fc(F.relu(self.conv2(torch.cat([self.a(a), b], 1))).mean((2, 3)))


class Quotient(nn.Module):
    """Selective kernel of split channels: the width of a path is a quotient of two attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.paths = 8, 2
        self.conv1 = nn.Conv2d(3, 8, 1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.conv2 = nn.Conv2d(4, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(F.relu(self.conv1(x)), self.channels // self.paths, 1)
        y = sum(conv(piece) for conv, piece in zip(self.convs, pieces, strict=True))
        return self.fc(F.relu(self.conv2(y)).mean((2, 3)))


class Shared(nn.Module):
    """Non-local block: one attribute counts the channels of three convs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = 4
        self.conv1 = nn.Conv2d(3, 6, 1)
        self.theta, self.phi, self.g = (nn.Conv2d(6, 4, 1) for _ in range(3))
        self.out = nn.Conv2d(4, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        b, _, h, w = x.shape
        g, theta = (f(x).view(b, self.inner, -1).transpose(1, 2) for f in (self.g, self.theta))
        attention = torch.softmax(theta @ self.phi(x).view(b, self.inner, -1), -1)
        y = (attention @ g).transpose(1, 2).reshape(b, self.inner, h, w)
        return self.fc((x + self.out(y)).mean((2, 3)))


class Derived(nn.Module):
    """ShuffleNet v1: a number read from a shape, divided by an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 2
        self.conv1 = nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.conv2 = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(F.relu(self.conv1(x)))
        b, c, h, w = x.shape
        x = x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2)
        return self.fc(F.relu(self.conv2(x.reshape(b, c, h, w))).mean((2, 3)))


TRACEABLE = [
    *(Split, UnequalSplit, Paths, Ghost, DualPath, Flat, Functional, Halves, Quotient, Shared),
    Derived,
]
CASES = [
    (kind, name)
    for kind in TRACEABLE
    for name, module in kind().named_modules()
    if isinstance(module, nn.Conv2d)
]
each_conv = pytest.mark.parametrize(
    ("kind", "layer"), CASES, ids=lambda v: getattr(v, "__name__", v)
)


def integers(model: nn.Module) -> dict[str, object]:
    return {
        f"{path}.{name}": value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if type(value) in (int, list, tuple)
    }


@each_conv
def test_growth_keeps_the_function(kind: type[nn.Module], layer: str) -> None:
    model, editor, probe = nets.editor_of(kind)
    x = nets.images(3, seed=9)
    before = nets.output(model, x)
    for request in (requests.AddFilters(layer, 2), requests.AddFilters(layer, split_from=1)):
        editor.apply(request, probe)
        assert torch.allclose(nets.output(model, x), before, rtol=1e-10)
    nets.step(model, editor.optimizers[0])


@each_conv
def test_removal_updates_the_sizes_and_is_undone(kind: type[nn.Module], layer: str) -> None:
    fresh = nets.build(kind, seed=4)
    model, editor, probe = nets.editor_of(kind)
    before = nets.checksum(model, *editor.optimizers)
    sizes = integers(model)
    editor.apply(requests.RemoveFilters(layer, [1]), probe)
    Journal.from_data(editor.journal.to_data()).replay(fresh)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(nets.output(fresh), nets.output(model))
    editor.apply(requests.Undo(), probe)
    assert integers(model) == sizes
    assert nets.checksum(model, *editor.optimizers) == before


def test_attribute_edits_are_part_of_the_plan() -> None:
    model, editor, probe = nets.editor_of(Split)
    plan = editor.plan(requests.RemoveFilters("conv1", [1]), probe)
    (edit,) = plan.attributes
    assert (edit.module, edit.attribute, edit.old, edit.new) == ("", "width", 4, 3)
    assert model.width == 4
    editor.apply(requests.RemoveFilters("conv1", [1]), probe)
    assert model.width == 3
    assert type(model.width) is int
    _, editor, probe = nets.editor_of(UnequalSplit)
    plan = editor.plan(requests.RemoveFilters("conv1", [6]), probe)
    assert {(e.attribute, e.index, e.new) for e in plan.attributes} == {("sizes", 1, 2)}
    plan = editor.plan(requests.AddFilters("right"), probe)
    assert {(e.attribute, e.new) for e in plan.attributes} == {("untouched", 7)}


class Product(nn.Module):
    """The product of two attributes: which of them has to change is ambiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 2, 3
        self.conv1 = nn.Conv2d(3, 6, 1)
        self.conv2 = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return self.conv2(self.conv1(x).view(b, self.heads * self.width, h, w)).mean((2, 3))


class HardCoded(nn.Module):
    """A number in the code, which its source shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 1)
        self.conv2 = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return self.conv2(self.conv1(x).view(b, 6, h, w)).mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        (Product, EditRefusedError, "heads and width"),
        (HardCoded, EditRefusedError, "written as a number"),
    ],
)
def test_ambiguous_sizes_are_refused(
    kind: type[nn.Module], error: type[Exception], reason: str
) -> None:
    model, editor, probe = nets.editor_of(kind)
    before = nets.checksum(model, *editor.optimizers)
    for request in (requests.RemoveFilters("conv1", [2]), requests.AddFilters("conv1")):
        with pytest.raises(error, match=reason):
            editor.apply(request, probe)
    assert nets.checksum(model, *editor.optimizers) == before


def test_channels_counted_by_one_number_are_coupled() -> None:
    _, editor, probe = nets.editor_of(Shared)
    plan = editor.plan(requests.RemoveFilters("g", [1]), probe)
    assert {s.layer: s.filters for s in plan.filter_changes} == {"theta": [1], "phi": [1], "g": [1]}
    assert [(e.attribute, e.old, e.new) for e in plan.attributes] == [("inner", 4, 3)]


def test_attributes_are_restored_after_a_trace() -> None:
    model, editor, probe = nets.editor_of(UnequalSplit)
    sizes = model.sizes
    with temporary_traced_ints(model):
        assert isinstance(model.touched, TracedInt)
    editor.channel_groups(probe)
    assert model.sizes is sizes
    assert type(model.touched) is int
    assert all(type(n) is int for n in model.sizes)


def test_arithmetic_tracks_attributes() -> None:
    model = Product()
    with temporary_traced_ints(model):
        heads, width = model.heads, model.width
        linear = 2 * heads - width
        assert int(linear) == 1
        assert linear.expression.is_linear
        assert not linear.expression.has_untraced_part
        assert linear.expression.value(lambda a: {"heads": 5, "width": 4}[a.name]) == 6
        assert (7 - heads).expression.has_untraced_part
        assert not (heads * width).expression.is_linear
        assert (7 // heads).expression.has_untraced_part
        whole = 3 * heads
        assert (whole // width).expression.divisors == (width.expression.terms[0][0],)
        assert (whole // width).expression.value(lambda a: {"heads": 5, "width": 9}[a.name]) == 5
        assert not (heads // width).expression.is_linear
        assert copy.deepcopy(heads) == 2
        assert type(copy.deepcopy(heads)) is int
