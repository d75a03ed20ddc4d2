"""Receptive fields, attributions and preferred images of signals and volumes, written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.inspection.attribution import (
    attribute_filter_response,
    trace_activation,
)
from revacnn_lightning.telemetry.inspection.image_ascent import ImageAscent, PixelStatistics
from revacnn_lightning.telemetry.inspection.receptive_field import (
    PixelBox,
    ReceptiveFields,
    as_volume,
    compute_receptive_fields,
)
from revacnn_lightning.telemetry.inspection.top_images import MAX_SIGNAL_VALUES, TopRecentImages

CONVS = {1: nn.Conv1d, 3: nn.Conv3d}


class Permuted(nn.Module):
    """A network of sequences (B, T, C), with norms and shortcuts along the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(2, 4, 3), nn.LayerNorm(4)
        self.second = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).transpose(1, 2)
        x = self.norm(x).permute(0, 2, 1)
        return x + self.second(x)


class Frames(nn.Module):
    """2D convolutions of each slice, and one channel of the volume."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 3, (1, 3, 3)), nn.Conv3d(1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)[:, 1].unsqueeze(1))


class Gated(nn.Module):
    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.conv, self.gate = CONVS[dimensions](2, 4, 3), CONVS[dimensions](4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        pooled = x.mean(tuple(range(2, x.dim())), keepdim=True)
        return x * torch.sigmoid(self.gate(pooled))


Shape = tuple[int, ...]
NETS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "strided": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 5, stride=3, padding=4), nn.ReLU(), nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(4, 3, 3, dilation=2),
        ), (2, 60)),
    "padded": (
        lambda: nn.Sequential(
            nn.ReflectionPad1d((3, 1)), nn.Conv1d(2, 4, 3), nn.AvgPool1d(2),
            nn.ReplicationPad1d(2), nn.Conv1d(4, 3, 2), nn.ConstantPad1d((1, 0), 0.5),
            nn.Conv1d(3, 2, 3, stride=2),
        ), (2, 40)),
    "upsampled": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 4, stride=4), nn.Upsample(scale_factor=2), nn.Conv1d(4, 3, 3),
            nn.ConvTranspose1d(3, 3, 3, stride=2, padding=1), nn.Conv1d(3, 2, 2),
        ), (2, 50)),
    "adaptive": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.AdaptiveAvgPool1d(7), nn.Conv1d(4, 2, 2)),
        (2, 33)),
    "permuted": (Permuted, (2, 21)),
    "volume": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 3, (3, 3, 2), stride=(1, 2, 2), padding=1), nn.BatchNorm3d(3), nn.ReLU(),
            nn.MaxPool3d(2), nn.Conv3d(3, 2, (2, 3, 1)),
        ), (2, 8, 17, 12)),
    "upsampled volume": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 3, 2, stride=2), nn.Upsample(scale_factor=2), nn.Conv3d(3, 2, 3),
            nn.ReplicationPad3d(1), nn.AvgPool3d(2),
        ), (2, 8, 10, 12)),
    "frames": (Frames, (2, 5, 8, 9)),
}  # fmt: skip


def without_cancellation(network: nn.Module) -> nn.Module:
    """Change the network so that each unit has a gradient at all positions it depends on."""
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() > 2:
            nn.init.constant_(weight, 1 / weight[0].numel())
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool1d | nn.MaxPool3d):
                kind = nn.AvgPool1d if isinstance(child, nn.MaxPool1d) else nn.AvgPool3d
                setattr(module, name, kind(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.LayerNorm):
                setattr(module, name, nn.Identity())
    return network.double().eval()


def reference_ends(network: nn.Module, shape: Shape) -> list[np.ndarray]:
    """Return the first and last position that units depend on, of each dimension of positions."""
    pixels = (torch.rand(1, *shape, dtype=torch.float64) + 0.5).requires_grad_()
    total = without_cancellation(network)(pixels).sum(1)[0]
    found = []
    for axis in range(total.dim()):
        ends = []
        for units in total.unbind(axis):
            (gradient,) = torch.autograd.grad(units.sum(), pixels, retain_graph=True)
            others = [d for d in range(gradient.dim()) if d != axis + 2]
            seen = gradient.abs().sum(others).nonzero()
            ends.append([int(seen.min()), int(seen.max())])
        found.append(np.array(ends))
    return found


@pytest.mark.parametrize("name", NETS)
def test_receptive_fields_match_gradients(name: str) -> None:
    make, shape = NETS[name]
    network = make().eval()
    pixels = torch.randn(1, *shape, requires_grad=True)
    field = compute_receptive_fields(network(pixels), pixels)
    expected = reference_ends(network, shape)
    actual = [field.slices, field.rows, field.columns][-len(expected) :]
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    if len(shape) == 2:
        assert field.max_size[0] == field.max_depth == 1


@pytest.mark.parametrize(("dimensions", "shape"), [(1, (2, 12)), (3, (2, 5, 6, 7))])
def test_a_gate_of_a_whole_signal_or_volume_is_ignored(dimensions: int, shape: Shape) -> None:
    pixels = torch.randn(1, *shape, requires_grad=True)
    field = compute_receptive_fields(Gated(dimensions)(pixels), pixels)
    assert (field.max_depth, *field.max_size)[-dimensions:] == (3,) * dimensions


def test_a_mixture_of_positions_depends_on_the_whole_signal() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(8, 3, 1)

        def forward(self, x: Tensor) -> Tensor:  # positions become channels
            return self.conv(x.transpose(1, 2)).transpose(1, 2)

    pixels = torch.randn(1, 2, 8, requires_grad=True)
    field = compute_receptive_fields(Mixed()(pixels), pixels)
    assert field.box(0, 1) == PixelBox(0, 0, 1, 8)


# ---------------------------------------------------------------------- attributions


class Net(nn.Module):
    """Two convolutions with a pooling between them."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        torch.manual_seed(dimensions)
        conv = CONVS[dimensions]
        self.first, self.second = conv(2, 6, 3, padding=1), conv(6, 5, 3)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.pool = nn.MaxPool1d(2) if dimensions == 1 else nn.MaxPool3d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.second(self.pool(self.relu1(self.first(x))))).flatten(2).mean(2)


class GuidedRelu(torch.autograd.Function):
    """The ReLU whose backward pass is that of guided backpropagation."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return gradient.clamp_min(0) * (x > 0)


class DeconvolutionRelu(GuidedRelu):
    """The ReLU whose backward pass is that of the deconvolution."""

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp_min(0)


SHAPES: dict[int, Shape] = {1: (2, 40), 3: (2, 8, 12, 10)}


@pytest.mark.parametrize("dimensions", [1, 3])
def test_attributions_equal_autograd_written_out(dimensions: int) -> None:
    model = Net(dimensions).eval()
    values = torch.randn(SHAPES[dimensions], generator=torch.Generator().manual_seed(3))
    traced = trace_activation(model, model, model.second, values)
    assert traced is not None
    assert traced.has_receptive_field
    for index in model(values[None])[0].topk(2).indices.tolist():  # that respond to them
        found = attribute_filter_response(model, model, traced, index, values)
        assert found.refusal == ""
        for relu, actual in (
            (DeconvolutionRelu, found.deconvolution), (GuidedRelu, found.guided_backpropagation),
        ):  # fmt: skip
            pixels = values[None].clone().requires_grad_()
            maps = relu.apply(model.second(model.pool(relu.apply(model.first(pixels)))))
            peak = maps[0, index].max()
            (gradient,) = torch.autograd.grad(peak, pixels)
            expected = as_volume(gradient[0])
            assert found.response == pytest.approx(float(peak), rel=1e-5)
            torch.testing.assert_close(actual, found.box.crop(expected), rtol=1e-4, atol=1e-7)
            outside = expected.clone()
            found.box.crop(outside).zero_()
            assert not outside.any()
            assert actual is not None
            assert actual.any()
        assert found.response_map is not None
        unit = int(found.response_map.argmax())
        assert traced.box(*divmod(unit, traced.map_size[1])) == found.box


def test_inspecting_a_signal_leaves_the_network_alone() -> None:
    model = Net(1).train()
    values = torch.randn(SHAPES[1])
    model(values[None]).sum().backward()
    gradients = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    random = torch.get_rng_state()
    traced = trace_activation(model, model, model.second, values)
    assert traced is not None
    attribute_filter_response(model, model, traced, 0, values)
    statistics = PixelStatistics.of([values], torch.device("cpu"))
    assert ImageAscent(model, model, traced, 0, values, statistics).advance(3)
    assert torch.equal(torch.get_rng_state(), random)
    after = [each.grad for each in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(gradients, after, strict=True))
    assert model.training


def test_a_linear_layer_of_a_signal_depends_on_all_of_it() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(30, 4))
    traced = trace_activation(model, model, model[3], torch.randn(2, 12))
    assert traced is not None
    assert traced.has_receptive_field
    assert traced.box(0, 0) == PixelBox(0, 0, 1, 12)


# ---------------------------------------------------------------------- preferred images


@pytest.mark.parametrize("dimensions", [1, 3])
def test_a_filter_prefers_its_own_pattern(dimensions: int) -> None:
    conv = CONVS[dimensions](1, 1, 3)
    pattern = torch.ones(3)
    pattern[:1] = -1  # along the last dimension
    with torch.no_grad():
        conv.weight.copy_(pattern.expand_as(conv.weight))
    model = nn.Sequential(conv, nn.ReLU())
    values = torch.rand(4, 1, *SHAPES[dimensions][1:])
    traced = trace_activation(model, model, model[0], values[0])
    assert traced is not None
    statistics = PixelStatistics.of(values, torch.device("cpu"))
    search = ImageAscent(model, model, traced, 0, values[0], statistics)
    assert search.advance(60)
    image = search.image()
    assert image.shape == ((1, 1, 1, 3) if dimensions == 1 else (1, 3, 3, 3))
    assert image[..., :1].max() < 0.1
    assert image[..., 1:].min() > 0.9


def test_the_middle_unit_of_a_volume_lies_in_its_middle_slice() -> None:
    model = nn.Conv3d(1, 2, 3, padding=1)
    traced = trace_activation(model, model, model, torch.randn(1, 7, 9, 11))
    assert traced is not None
    assert traced.box(*traced.middle) == PixelBox(3, 4, 6, 7, 2, 5)


# ---------------------------------------------------------------------- top images


def add(found: TopRecentImages, values: Tensor, box: PixelBox) -> None:
    found.add(0, np.array([[1.0], [0.0]]), values[None], lambda index, position: box)


def test_a_crop_of_a_long_signal_keeps_its_range() -> None:
    found, values = TopRecentImages(), torch.zeros(1, 3 * MAX_SIGNAL_VALUES)
    values[0, 777], values[0, 778] = 1.0, -1.0
    add(found, values, PixelBox(0, 0, 1, values.shape[1]))
    (ranked,) = found.ranked(0)
    assert ranked.crop.shape[:3] == (1, 1, 1)
    assert ranked.crop.shape[3] <= MAX_SIGNAL_VALUES
    assert (ranked.crop.min(), ranked.crop.max()) == (0, 255)


def test_a_crop_of_a_volume_has_slices_and_keeps_its_place() -> None:
    found, values = TopRecentImages(), torch.zeros(3, 6, 8, 8)
    values[0, 4, 2:4, 5:7] = 1.0
    add(found, values, PixelBox(2, 5, 4, 7, 3, 6))
    (ranked,) = found.ranked(0)
    assert ranked.is_volume
    assert ranked.crop.shape == (3, 3, 2, 2)
    assert (ranked.crop[0, 1] == 255).all()
    assert not ranked.crop[0, [0, 2]].any()
    assert ranked.image_size == (6, 8, 8)


def test_units_of_another_number_of_dimensions_get_the_whole_input() -> None:
    field = ReceptiveFields.of_whole_input((1, 4, 5), (3, 8, 9))
    assert field.box(3, 4) == PixelBox(0, 0, 8, 9, 0, 3)
