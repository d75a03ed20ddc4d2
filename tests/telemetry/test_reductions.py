from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from revacnn_lightning.telemetry import conv as convs
from revacnn_lightning.telemetry import reductions
from tests.telemetry import reference

SIZES = [
    (2, 3, 5, 7),
    (1, 1, 1, 1),
    (4, 6, 2, 2),
    (3, 5, 16, 16),
    (64, 32, 24, 24),  # several blocks
    (3, 200, 40, 40),  # a block smaller than an image
    (0, 4, 3, 3),
]
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "strided": lambda x: x.repeat_interleave(2, 3)[..., ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_map_reductions_match_double_precision(size, layout, dtype):
    torch.manual_seed(0)
    maps = layout(torch.randn(size).to(dtype))
    double = maps.double()
    torch.testing.assert_close(
        reductions.sum_per_channel(maps).double(), double.sum((0, 2, 3)), rtol=1e-5, atol=1e-2
    )
    torch.testing.assert_close(
        reductions.absolute_sum_per_channel(maps).double(),
        double.abs().sum((0, 2, 3)),
        rtol=1e-5,
        atol=1e-2,
    )
    torch.testing.assert_close(
        reductions._absolute_sum_in_one_kernel(maps, (0, 2, 3)),
        reductions.absolute_sum_per_channel(maps),
        rtol=1e-5,
        atol=1e-2,
    )
    assert torch.equal(
        reductions.positive_count_per_channel(maps), (maps > 0).sum((0, 2, 3)).float()
    )


def test_signals_to_noise_match_each_layer():
    torch.manual_seed(0)
    sizes = [(64, 20), (3, 7), (64, 3000), (64, 1500), (1, 4), (64, 600), (3, 1), (0, 2)]
    layers = [torch.randn(size) for size in sizes]
    results = reductions.signals_to_noise(layers)
    for images, result in zip(layers, results, strict=True):
        torch.testing.assert_close(result, reductions.signal_to_noise(images), equal_nan=True)
        if len(images) < 2:
            assert result.isnan().all()
            continue
        expected = images.double().mean(0).abs() / images.double().std(0)
        torch.testing.assert_close(result.double(), expected, equal_nan=True, rtol=1e-4, atol=1e-6)
    assert reductions.signals_to_noise([]) == []


def test_infinity_and_nan_propagate():
    maps = torch.ones(2, 3, 4, 4)
    maps[0, 1, 0, 0] = torch.inf
    maps[1, 2, 0, 0] = torch.nan
    sums = reductions.absolute_sum_per_channel(maps)
    assert sums[0] == 32
    assert sums[1] == torch.inf
    assert sums[2].isnan()


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    transposed=st.booleans(),
    last=st.booleans(),
)
def test_coefficient_reductions_match_reference(groups, inputs, outputs, kernel, transposed, last):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(groups * inputs, groups * outputs, kernel, groups=groups)
    if last:
        conv = conv.to(memory_format=torch.channels_last)
    filters = convs.filters_first(conv.weight.detach(), conv)
    rows = convs.filter_rows(conv.weight.detach(), conv)
    assert rows.shape == (groups * outputs, inputs * kernel[0] * kernel[1])
    torch.testing.assert_close(
        reductions.filter_l1_norm(filters).double() / rows.shape[1],
        torch.from_numpy(reference.mean_absolute_coefficient(conv.weight, conv)),
        rtol=1e-5,
        atol=1e-6,
    )
    torch.testing.assert_close(
        reductions.filter_l2_norm(filters).double(),
        torch.from_numpy(reference.norm(conv.weight, conv)),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_results_are_float32(dtype):
    weight = torch.randn(4, 3, 2, 2).to(dtype)
    for reduction in (reductions.filter_l1_norm, reductions.filter_l2_norm):
        assert reduction(weight).dtype == torch.float32
    torch.testing.assert_close(
        reductions.filter_l1_norm(weight), weight.float().abs().sum((1, 2, 3))
    )


def test_coefficient_sum_of_several_blocks():
    conv = nn.Conv2d(300, 130, 3)
    for weight in (conv.weight, conv.weight.contiguous(memory_format=torch.channels_last)):
        sums = reductions.filter_l1_norm(weight.detach())
        torch.testing.assert_close(sums, weight.detach().abs().sum((1, 2, 3)))


def test_layers_reduced_together_are_those_reduced_alone():
    torch.manual_seed(0)
    shapes = [(8, 3, 3, 3), (5, 3, 3, 3), (0, 3, 3, 3), (8, 27), (6, 27), (64, 64, 3, 3)]
    layers = [torch.randn(shape) for shape in (*shapes, (4, 3, 3, 3), (64, 64, 3, 3))]
    layers += [layer.to(dtype) for dtype in (torch.float64, torch.bfloat16) for layer in layers[:2]]
    layers += [torch.randn(40, 40, 3, 3).contiguous(memory_format=torch.channels_last)] * 12
    before = [layer.clone() for layer in layers]
    for together, alone in (
        (reductions.filter_l1_norms, reductions.filter_l1_norm),
        (reductions.filter_l2_norms, reductions.filter_l2_norm),
    ):
        for found, layer in zip(together(layers), layers, strict=True):
            torch.testing.assert_close(found, alone(layer), rtol=1e-6, atol=0)
    assert all(torch.equal(layer, copy) for layer, copy in zip(layers, before, strict=True))
    assert reductions.filter_l1_norms([]) == []


def test_layers_of_one_shape_are_reduced_by_few_operations():
    layers = [torch.randn(8, 8, 3, 3) for _ in range(50)]
    with torch.profiler.profile() as profile:
        reductions.filter_l2_norms(layers)
    names = [event.name for event in profile.events()]
    assert names.count("aten::linalg_vector_norm") == 1
    assert names.count("aten::cat") == 1


def test_a_total_from_inference_mode_can_be_added_to_outside_of_it() -> None:
    with torch.inference_mode():
        total = reductions.add_to(None, torch.ones(3))
        total = reductions.add_to(total, torch.ones(3))
    assert reductions.add_to(total, torch.ones(3)).tolist() == [3, 3, 3]
