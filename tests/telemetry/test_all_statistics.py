"""All statistics, in networks whose maps are difficult to assign to convs."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from revacnn_lightning.telemetry import REQUESTED_STATISTICS, STATISTICS, Recorder
from tests.telemetry import reference
from tests.telemetry.adapter import of_layer

IMAGES = torch.randn(6, 3, 10, 10, generator=torch.Generator().manual_seed(2))


def record(recorder, model, images=IMAGES):
    model.zero_grad()
    recorder.begin_batch()
    reference.train_step(model, images)
    return recorder.end_batch()


def expected(maps: torch.Tensor, gradient: torch.Tensor, absolute: bool) -> dict[str, np.ndarray]:
    """Return the map statistics of given maps and gradients, (B, C, H, W)."""
    images = gradient.double().sum((2, 3))
    products = (maps * gradient).double().sum((2, 3))
    return {
        "activation": reference.pixel_sum(maps.abs() if absolute else maps),
        "firing": (maps > 0).double().mean((0, 2, 3)).numpy(),
        "activation_gradient": gradient.double().abs().mean((0, 2, 3)).numpy(),
        "signal_to_noise": (images.mean(0).abs() / images.std(0)).numpy(),
        "price": (len(maps) * products.square().sum(0)).sqrt().numpy(),
    }


def check(recording, layer, maps, gradient, absolute=False):
    for name, values in expected(maps, gradient, absolute).items():
        if name not in recording.names:
            continue
        np.testing.assert_allclose(
            of_layer(recording, name, layer), values, rtol=2e-3, atol=1e-6, err_msg=name
        )


class Residual(nn.Module):
    """A ReLU that is used twice, as in torchvision's ResNets, and an in-place sum."""

    def __init__(self, in_place: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 3, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=in_place)
        self.seen: dict[str, torch.Tensor] = {}

    def keep(self, name: str, x: torch.Tensor) -> None:
        if self.training and x.requires_grad:
            self.seen[name] = x.detach().clone()
            x.register_hook(lambda g: self.seen.__setitem__(name + ".gradient", g.clone()))

    def forward(self, x):
        y = self.relu(self.bn1(self.first(x)))
        self.keep("first", y)
        y = self.second(y)
        self.keep("second", y)
        y = self.bn2(y)
        y += x
        return self.relu(y)


@pytest.mark.parametrize("in_place", [True, False])
def test_residual_block(recorder_of, in_place):
    torch.manual_seed(0)
    model = Residual(in_place)
    everything = (*STATISTICS, *REQUESTED_STATISTICS)
    recorder = recorder_of(model, everything)
    for batch in range(3):  # the first is the discovery batch, the others rely on it
        recording = record(recorder, model, IMAGES * (1 + batch))
        assert recording.names == list(everything)
        for layer, absolute in (("first", False), ("second", True)):
            check(
                recording,
                layer,
                model.seen[layer],
                model.seen[layer + ".gradient"],
                absolute,
            )
    assert recorder.activation_sources == {"first": "relu", "second": ""}


def test_in_place_function_after_a_conv(recorder_of):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            self.map = y.detach().clone()
            return F.relu_(y)

    torch.manual_seed(0)
    model = Net()
    recorder = recorder_of(model)
    for _ in range(3):
        recording = record(recorder, model)
        np.testing.assert_allclose(
            of_layer(recording, "activation", "conv"),
            reference.pixel_sum(model.map.abs()),
            rtol=1e-4,
        )


def test_map_is_summed_before_it_is_overwritten(recorder_of):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.overwrite = False

        def forward(self, x):
            y = self.conv(x)
            self.map = y.detach().clone()
            return F.relu_(y) if self.overwrite else F.relu(y)

    torch.manual_seed(0)
    model = Net()
    recorder = recorder_of(model)
    record(recorder, model)
    record(recorder, model)
    model.overwrite = True
    for _ in range(2):
        recording = record(recorder, model)
        np.testing.assert_allclose(
            of_layer(recording, "activation", "conv"),
            reference.pixel_sum(model.map.abs()),
            rtol=1e-4,
        )


class Dynamic(nn.Module):
    """Takes a different path on every other batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.extra = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.batch = 0

    def forward(self, x):
        self.batch += 1
        if self.batch % 2 == 0:
            x = self.relu(self.extra(x))
            self.extra_map = x.detach().clone()
        y = self.relu(self.conv(x))
        self.map = y.detach().clone()
        return y


def test_dynamic_network_is_never_recorded_incorrectly(recorder_of):
    torch.manual_seed(0)
    model = Dynamic()
    recorder = recorder_of(model)
    missed = 0
    for batch in range(8):
        recording = record(recorder, model)
        values = of_layer(recording, "activation", "conv")
        if np.isnan(values).all():
            missed += 1
        else:
            np.testing.assert_allclose(values, reference.pixel_sum(model.map), rtol=1e-4)
        extra = of_layer(recording, "activation", "extra")
        if model.batch % 2:
            assert np.isnan(extra).all()  # not run
        elif not np.isnan(extra).all():
            np.testing.assert_allclose(extra, reference.pixel_sum(model.extra_map), rtol=1e-4)
        assert batch < 4 or not np.isnan(np.append(recording.values[0], values)).any()
    assert missed <= 1


def test_varying_number_of_forwards_per_batch(recorder_of):
    torch.manual_seed(0)
    model = Residual()
    recorder = recorder_of(model)
    for forwards in (1, 2, 3, 1):
        model.zero_grad()
        recorder.begin_batch()
        maps = []
        for i in range(forwards):
            reference.train_step(model, IMAGES * (1 + i))
            maps.append(model.seen["first"])
        recording = recorder.end_batch()
        np.testing.assert_allclose(
            of_layer(recording, "activation", "first"),
            reference.pixel_sum(torch.cat(maps)),
            rtol=1e-4,
        )
        np.testing.assert_allclose(
            of_layer(recording, "gradient", "first"),
            reference.mean_absolute_coefficient(model.first.weight.grad, model.first),
            rtol=1e-3,
        )


def test_inspection_statistics_of_inspected_layers(recorder_of):
    torch.manual_seed(0)
    model = Residual()
    recorder = recorder_of(model, ("gradient", "activation"))
    assert record(recorder, model).names == ["gradient", "activation"]
    recorder.details.open("second")
    recording = record(recorder, model)
    assert recording.names == [
        "gradient",
        "activation",
        "activation_gradient",
        "firing",
        "signal_to_noise",
    ]
    assert np.isnan(of_layer(recording, "firing", "first")).all()
    check(recording, "second", model.seen["second"], model.seen["second.gradient"], True)
    recorder.details.close_all()
    assert record(recorder, model).names == ["gradient", "activation"]


def test_forward_without_gradients_counts(recorder_of):
    torch.manual_seed(0)
    model = Residual()
    recorder = recorder_of(model)
    for _ in range(2):
        recorder.begin_batch()
        with torch.no_grad():
            output = model(IMAGES)
        recording = recorder.end_batch()
    assert output.shape == IMAGES.shape
    assert (of_layer(recording, "activation", "first") > 0).all()
    assert (of_layer(recording, "activation_gradient", "first") == 0).all()
    assert (of_layer(recording, "gradient", "first") == 0).all()


def test_transposed_grouped_conv(recorder_of):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.ConvTranspose2d(3, 6, 3, groups=3)
            self.act = nn.SiLU()

        def forward(self, x):
            y = self.act(self.conv(x))
            self.map = y.detach().clone()
            y.register_hook(lambda g: setattr(self, "gradient", g.clone()))
            return y

    torch.manual_seed(0)
    model = Net()
    recorder = recorder_of(model)
    for _ in range(2):
        recording = record(recorder, model)
        check(recording, "conv", model.map, model.gradient)
        np.testing.assert_allclose(
            of_layer(recording, "gradient", "conv"),
            reference.mean_absolute_coefficient(model.conv.weight.grad, model.conv),
            rtol=1e-4,
        )


def test_double_precision(recorder_of):
    torch.manual_seed(0)
    model = Residual().double()
    recorder = recorder_of(model)
    for _ in range(2):
        recording = record(recorder, model, IMAGES.double())
    assert recording.values.dtype == np.float32
    check(recording, "first", model.seen["first"], model.seen["first.gradient"])


def test_memory_does_not_grow(recorder_of):
    import gc

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    recorder = recorder_of(model)

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    for _ in range(5):
        record(recorder, model)
    before = objects()
    for _ in range(50):
        record(recorder, model)
    assert objects() - before < 20


def test_small_budget_samples_expensive_statistics_less_often(recorder_of):
    torch.manual_seed(0)
    model = Residual()
    recorder = Recorder(model, statistics=STATISTICS, max_overhead=1e-6)  # exceeded by everything
    optimizer = torch.optim.Adam(model.parameters())
    recorder.attach()

    intervals: dict[str, int] = {}

    def count_samples(batches: int) -> dict[str, int]:
        count = dict.fromkeys(STATISTICS, 0)
        for batch in range(batches):
            recorder.begin_batch()
            optimizer.zero_grad()
            reference.train_step(model, IMAGES)
            if batch % 2:
                optimizer.step()
            recording = recorder.end_batch()
            assert (
                recording.sampling_intervals == list(recorder._schedule.intervals.values())
                or batch % 20 == 19
            )
            intervals.update(zip(recording.names, recording.sampling_intervals, strict=True))
            for name in STATISTICS:
                count[name] += not np.isnan(of_layer(recording, name, "first")).all()
        return count

    count_samples(300)
    before = dict(intervals)
    expensive = [name for name in STATISTICS if before[name] > 1]
    assert len(expensive) >= 3
    count = count_samples(128)
    recorder.detach()
    assert before["gradient"] == before["activation"] == 1
    assert count["gradient"] == count["activation"] == 128
    for name in expensive:
        assert 1 <= count[name] <= 64 + 1
    assert recorder._schedule._governor.overhead > 1e-6


def test_without_budget_everything_is_sampled(recorder_of):
    model = Residual()
    recorder = recorder_of(model)
    for _ in range(50):
        recording = record(recorder, model)
    assert set(recording.sampling_intervals) == {1}
    assert np.isfinite(of_layer(recording, "firing", "first")).all()
    assert recorder._schedule._governor.overhead > 0


def test_no_price_where_something_writes_to_the_map(recorder_of):
    """The map is gone when its gradient arrives."""

    class AddsInPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

        def forward(self, x):
            return self.second(self.first(x).add_(1)).mean((2, 3))

    model = AddsInPlace()
    recorder = recorder_of(model, ("price",))
    for _ in range(4):
        recording = record(recorder, model)
        assert np.isnan(of_layer(recording, "price", "first")).all()
        assert (of_layer(recording, "price", "second") > 0).all()


def test_the_price_kept_all_maps_until_the_next_batch(recorder_of):
    """Autograd frees a map as soon as its gradient has arrived."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 2, 3))
    recorder = recorder_of(model, ("price",))
    record(recorder, model)
    model.zero_grad()
    recorder.begin_batch()
    loss = model(IMAGES).square().mean()
    shapes = {(6, 4, 8, 8), (6, 5, 6, 6), (6, 2, 4, 4)}
    assert maps_alive(shapes)
    loss.backward()
    assert not maps_alive(shapes)
    assert (of_layer(recorder.end_batch(), "price", "0") > 0).all()
    assert loss.requires_grad  # the graph is alive


def maps_alive(shapes: set[tuple[int, ...]]) -> list[torch.Tensor]:
    return [
        each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape in shapes
    ]


@pytest.mark.parametrize("batches_before", [0, 3])
def test_the_price_of_a_graph_that_is_used_twice(recorder_of, batches_before):
    """All images count twice, with each of their gradients."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    recorder = recorder_of(model, ("price",))
    for _ in range(batches_before):
        record(recorder, model)
    model.zero_grad()
    recorder.begin_batch()
    maps = model[:2](IMAGES)
    loss = model[2](maps).square().mean()
    (gradient,) = torch.autograd.grad(loss, maps, retain_graph=True)
    loss.backward()
    price = of_layer(recorder.end_batch(), "price", "0")
    once = expected(maps.detach(), gradient, False)["price"]
    np.testing.assert_allclose(price, 2 * once, rtol=1e-5)


@pytest.mark.parametrize("batches_before", [0, 3])
def test_the_gradient_of_an_earlier_batch_was_replaced_by_that_of_this_one(
    recorder_of, batches_before
):
    """Both count in the batch in which they arrive, each with its own map."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    recorder = recorder_of(model, ("activation_gradient", "price"))
    for _ in range(batches_before):
        record(recorder, model)
    all_maps, losses = [], []
    for batch in (1, 2):
        recorder.begin_batch()
        for loss in losses:
            loss.backward()
        all_maps.append(model[:2](batch * IMAGES))
        all_maps[-1].retain_grad()
        losses.append(model[2](all_maps[-1]).square().mean())
        if batch == 2:
            losses[-1].backward()
        recording = recorder.end_batch()
    maps = torch.cat([one.detach() for one in all_maps])
    gradients = torch.cat([one.grad for one in all_maps])
    for name in ("activation_gradient", "price"):
        np.testing.assert_allclose(
            of_layer(recording, name, "0"), expected(maps, gradients, False)[name], rtol=1e-5
        )


def test_the_price_of_recomputed_maps(recorder_of):
    """Activation checkpointing runs the forward again in the backward pass, with gradients."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    plain, recorder = copy.deepcopy(model), recorder_of(model, ("price",))
    (maps := plain[:2](IMAGES)).retain_grad()
    plain[2](maps).square().mean().backward()
    for _ in range(4):
        recorder.begin_batch()
        images = IMAGES.clone().requires_grad_()
        checkpoint(model, images, use_reentrant=False).square().mean().backward()
        price = of_layer(recorder.end_batch(), "price", "0")
        np.testing.assert_allclose(
            price, expected(maps.detach(), maps.grad, False)["price"], rtol=1e-5
        )
