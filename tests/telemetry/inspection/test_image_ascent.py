"""The image that a hand-made filter responds to most."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.inspection.attribution import trace_activation
from revacnn_lightning.telemetry.inspection.image_ascent import ImageAscent, PixelStatistics

IMAGES = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def ascent(model: nn.Module, layer: Any, index: int = 0, **options: Any) -> ImageAscent:
    traced = trace_activation(model, model, layer, IMAGES[0])
    assert traced is not None
    statistics = PixelStatistics.of(IMAGES, torch.device("cpu"))
    return ImageAscent(model, model, traced, index, IMAGES[0], statistics, **options)


def with_filter(weight: Tensor, *others: nn.Module) -> nn.Sequential:
    conv = nn.Conv2d(3, 1, weight.shape[-1])
    with torch.no_grad():
        conv.weight.copy_(weight.expand_as(conv.weight))
        assert conv.bias is not None
        conv.bias.fill_(-100.0)  # inactive in every image
    return nn.Sequential(conv, *others)


def test_an_edge_filter_prefers_that_edge() -> None:
    edge = torch.ones(5, 5)
    edge[:, :2] = -1
    model = with_filter(edge, nn.ReLU(inplace=True))
    search = ascent(model, model[0])
    assert search.advance(60)
    image = search.image()[:, 0]
    assert image.shape == (3, 5, 5)
    assert image[:, :, :2].max() < 0.1
    assert image[:, :, 2:].min() > 0.9


def test_a_color_filter_prefers_that_color() -> None:
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 3, 3)
    model = with_filter(red)
    search = ascent(model, model[0])
    search.advance(60)
    assert search.image()[0].min() > 0.9
    assert search.image()[1:].max() < 0.1


def test_a_filter_behind_a_batch_norm_with_a_negative_factor_prefers_the_opposite() -> None:
    model = with_filter(torch.ones(3, 3), nn.BatchNorm2d(1), nn.ReLU())
    with torch.no_grad():
        model[1].weight.fill_(-1.0)
    search = ascent(model, model[0])
    search.advance(60)
    assert search.image().max() < 0.1


def test_the_response_rises_and_the_priors_keep_the_image_smooth() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(),
        nn.Conv2d(8, 4, 5, padding=2),
    )  # fmt: skip
    search = ascent(model, model[4], 2)
    search.advance(1)
    first = search.response
    search.advance(80)
    assert first is not None
    assert search.response is not None
    with torch.no_grad():
        real = model(IMAGES)[:, 2].max()
    assert search.response > 2 * max(first, float(real))
    assert search.image().shape == (3, 1, 13, 13)
    assert (search.image() >= IMAGES.amin()).all()


def test_a_linear_unit_prefers_the_image_of_its_weights() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2))
    weight = torch.zeros(3, 24, 24)
    weight[1, :12] = 1.0
    weight[1, 12:] = -1.0
    with torch.no_grad():
        model[1].weight[1] = weight.flatten()
    search = ascent(model, model[1], 1)
    search.advance(40)
    image = search.image()[:, 0]
    assert image.shape == (3, 24, 24)
    assert image[1, 2:10].mean() > 0.9
    assert image[1, 14:22].mean() < 0.1


def test_the_same_seed_gives_the_same_image_and_leaves_everything_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 2, 3))
    model(IMAGES).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    random = torch.get_rng_state()
    searches = [ascent(model, model[3], 1, seed=seed) for seed in (5, 5, 6)]
    for search in searches:
        search.advance(3)
        search.advance(4)
    first, same, other = (search.image() for search in searches)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    after = [each.grad for each in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(gradients, after, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_only_the_layers_up_to_the_filter_run() -> None:
    class Fails(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            assert not self.is_broken
            return maps

        is_broken = False

    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), Fails())
    search = ascent(model, model[0])
    Fails.is_broken = True
    assert search.advance(2)


def test_a_response_that_no_image_changes_ends_the_search() -> None:
    model = with_filter(torch.zeros(3, 3))
    search = ascent(model, model[0])
    assert not search.advance(5)
    assert search.steps == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16])
def test_images_of_other_types(dtype: torch.dtype) -> None:
    images = (255 * IMAGES).to(dtype)
    statistics = PixelStatistics.of(images, torch.device("cpu"))
    assert statistics.high.max() > 200
    model = nn.Sequential(nn.Conv2d(3, 2, 3))
    if dtype.is_floating_point:
        model.to(dtype)
    traced = trace_activation(model, model, model[0], images[0])  # type: ignore[arg-type]
    assert traced is not None
    search = ImageAscent(model, model, traced, 0, images[0], statistics)
    assert search.advance(3)
    assert search.image().dtype == torch.float32


def test_constant_images_have_statistics_too() -> None:
    statistics = PixelStatistics.of(torch.full((2, 1, 4, 4), torch.nan), torch.device("cpu"))
    assert statistics.deviation.item() == 1
    assert statistics.mean.item() == 0
