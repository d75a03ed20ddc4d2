"""Batches with specialized hooks have the values of batches without, whatever the network does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry import REQUESTED_STATISTICS, STATISTICS, Recorder, Recording
from revacnn_lightning.telemetry.recording.batch_recording import RecordingAssembler
from revacnn_lightning.telemetry.recording.hook_specializer import HookSpecializer
from revacnn_lightning.telemetry.recording.layer_statistics import SUM_AND_DIVISOR, SumAndDivisor
from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer
from tests.telemetry import reference
from tests.telemetry.adapter import of_layer

IMAGES = torch.randn(6, 3, 10, 10, generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    """Convs with and without a non-linearity; its path can be changed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.ConvTranspose2d(4, 3, 3, groups=1)
        self.path: Callable[[Net, Tensor], Tensor] = plain_path

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.path(self, x)))


def plain_path(net: Net, x: Tensor) -> Tensor:
    return net.relu(net.norm(net.first(x)))


def twice(net: Net, x: Tensor) -> Tensor:
    return plain_path(net, x) + plain_path(net, 2 * x)


def side_by_side(net: Net, x: Tensor) -> Tensor:
    maps = [net.norm(net.first(x * factor)) for factor in (1, 2)]
    return net.relu(maps[0]) + net.relu(maps[1])


def written_to(net: Net, x: Tensor) -> Tensor:
    y = net.norm(net.first(x))
    y += 1
    return net.relu(y)


def without_relu(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.first(x))


def train(
    net: Net, optimizer: torch.optim.Optimizer, recorder: Recorder, images: Tensor
) -> Recording:
    recorder.begin_batch()
    optimizer.zero_grad()
    reference.train_step(net, images)
    optimizer.step()
    recording = recorder.end_batch()
    assert recording is not None
    return recording


CHANGES: dict[str, Callable[[Net, int], Tensor]] = {
    "nothing": lambda net, batch: IMAGES * (1 + 0.1 * batch),
    "not finite": lambda net, batch: IMAGES * (torch.nan if batch == 4 else 1),
    "batch size": lambda net, batch: IMAGES[: 3 + batch % 3],
    "image size": lambda net, batch: IMAGES[:, :, : 6 + 2 * (batch // 3)],
    "twice": lambda net, batch: on(net, twice if batch == 4 else plain_path),
    "side by side": lambda net, batch: on(net, side_by_side if batch == 4 else plain_path),
    "written to": lambda net, batch: on(net, written_to if batch == 4 else plain_path),
    "without relu": lambda net, batch: on(net, without_relu if batch >= 4 else plain_path),
    "frozen": lambda net, batch: freeze(net, batch >= 4),
    "no gradients": lambda net, batch: without_gradients(net, batch),
}


def on(net: Net, path: Callable[[Net, Tensor], Tensor]) -> Tensor:
    net.path = path
    return IMAGES


def freeze(net: Net, is_frozen: bool) -> Tensor:
    net.first.weight.requires_grad_(not is_frozen)
    return IMAGES


def without_gradients(net: Net, batch: int) -> Tensor:
    net.requires_grad_(True)
    net.norm.requires_grad_(batch != 4)
    net.first.requires_grad_(batch != 4)
    return IMAGES


def recordings(change: str, kind: Any, options: dict[str, float]) -> list[Recording]:
    net = Net()
    optimizer = kind(net.parameters(), **options)
    recorder = Recorder(net, statistics=(*STATISTICS, *REQUESTED_STATISTICS))
    recorder.attach()
    made = [train(net, optimizer, recorder, CHANGES[change](net, batch)) for batch in range(8)]
    recorder.detach()
    return made


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.SGD, {"lr": 1e-5, "momentum": 0.9}), (torch.optim.Adam, {"lr": 1e-4})],
    ids=["SGD", "Adam"],
)
@pytest.mark.parametrize("change", CHANGES)
def test_values_are_those_of_the_general_hooks(
    change: str, kind: Any, options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    specialized = recordings(change, kind, options)
    monkeypatch.setattr(HookSpecializer, "_can_specialize", lambda *_: False)
    general = recordings(change, kind, options)
    for batch, (one, other) in enumerate(zip(specialized, general, strict=True)):
        assert one.layers == other.layers
        np.testing.assert_allclose(
            one.values, other.values, rtol=1e-5, atol=1e-6, err_msg=f"batch {batch}"
        )


def test_batches_like_the_one_before_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = []
    update = RecordingAssembler.update_layout

    def note(self: RecordingAssembler, *args: Any) -> bool:
        evaluated.append(1)
        return update(self, *args)

    monkeypatch.setattr(RecordingAssembler, "update_layout", note)
    recordings("nothing", torch.optim.SGD, {"lr": 1e-5, "momentum": 0.9})
    assert len(evaluated) == 2  # the discovery, and the first batch with specialized hooks


def test_a_statistic_without_slots_was_that_of_an_earlier_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A statistic may be computed at the end of the batch, as CONTRIBUTING.md shows."""

    def mean(layer: ObservedLayer) -> SumAndDivisor:
        return layer.conv.weight.detach().mean((1, 2, 3)), 1

    monkeypatch.setitem(SUM_AND_DIVISOR, "weight_norm", mean)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    recorder = Recorder(net)
    recorder.attach()
    for _ in range(5):
        recording = train(net, optimizer, recorder, IMAGES)
        expected = net.second.weight.detach().mean((1, 2, 3))
        np.testing.assert_allclose(of_layer(recording, "weight_norm", "second"), expected, 1e-5)
    recorder.detach()


def test_a_gradient_reset_within_the_batch_was_overwritten_by_the_next() -> None:
    """Both backward passes of a batch count, as those of a GAN's two steps."""
    net = Net()
    recorder = Recorder(net)
    recorder.attach()
    for _ in range(4):
        recorder.begin_batch()
        expected = np.zeros(4)
        for factor in (1, 3):
            net.zero_grad()
            reference.train_step(net, IMAGES * factor)
            expected += reference.mean_absolute_coefficient(net.first.weight.grad, net.first)
        recording = recorder.end_batch()
        np.testing.assert_allclose(of_layer(recording, "gradient", "first"), expected, rtol=1e-5)
    recorder.detach()


def test_weights_on_another_dtype_are_measured_from_then_on() -> None:
    net = Net()
    recorder = Recorder(net, statistics=STATISTICS)
    recorder.attach()
    for batch in range(5):
        if batch == 3:
            net.double()
        images = IMAGES.double() if batch >= 3 else IMAGES
        net.zero_grad()
        recorder.begin_batch()
        reference.train_step(net, images)
        recording = recorder.end_batch()
        np.testing.assert_allclose(
            of_layer(recording, "gradient", "first"),
            reference.mean_absolute_coefficient(net.first.weight.grad, net.first),
            rtol=1e-5,
        )
    recorder.detach()


def test_no_hook_of_a_weight_remains_while_nothing_is_recorded() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    recorder = Recorder(net)
    recorder.attach()
    before = train(net, optimizer, recorder, IMAGES)
    recorder.release_tensors()
    assert not any(parameter._backward_hooks for parameter in net.parameters())
    again = train(net, optimizer, recorder, IMAGES)
    assert np.isfinite(again.values).all()
    assert before.layers == again.layers
    recorder.detach()


def test_a_batch_recorded_alone_was_evaluated_although_it_was_like_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The history samples a batch now and then, and batches without a viewer between them."""
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    recorder = Recorder(net)
    recorder.attach()
    for _ in range(3):
        train(net, optimizer, recorder, IMAGES)
    recorder.release_tensors()

    def fails(*_: Any) -> bool:
        raise AssertionError

    monkeypatch.setattr(RecordingAssembler, "update_layout", fails)
    alone = train(net, optimizer, recorder, IMAGES)
    for layer in (net.first, net.second):
        norm = layer.weight.detach().flatten(1).norm(dim=1)
        name = "first" if layer is net.first else "second"
        np.testing.assert_allclose(of_layer(alone, "weight_norm", name), norm, rtol=1e-5)
    recorder.detach()


def test_all_modules_kept_a_hook_while_nothing_was_recorded() -> None:
    """Where the path changes, a hook on all modules records. It slows all of their calls."""
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    recorder = Recorder(net)
    recorder.attach()
    for path in (plain_path, written_to, plain_path):
        net.path = path
        train(net, optimizer, recorder, IMAGES)
    assert torch.nn.modules.module._global_forward_hooks
    recorder.release_tensors()
    assert not torch.nn.modules.module._global_forward_hooks
    alone = train(net, optimizer, recorder, IMAGES)
    assert np.isfinite(alone.values).all()
    recorder.detach()


def test_a_norm_was_that_of_before_weights_changed_while_nothing_was_recorded() -> None:
    """A step through ``.data`` leaves the version of a weight as it is."""
    net = Net()
    recorder = Recorder(net)
    recorder.attach()
    for factor in (1, 3):
        recorder.begin_batch()
        reference.train_step(net, IMAGES)
        recording = recorder.end_batch()
        norm = net.first.weight.detach().flatten(1).norm(dim=1)
        np.testing.assert_allclose(of_layer(recording, "weight_norm", "first"), norm, rtol=1e-5)
        recorder.release_tensors()
        net.first.weight.data.mul_(factor + 1)
    recorder.detach()


def written_to_later(net: Net, x: Tensor) -> Tensor:
    y = plain_path(net, x)
    with torch.no_grad():
        y.mul_(3)
    return y.detach()  # autograd would refuse to go back through it


def test_a_map_that_waited_for_others_was_summed_with_what_something_wrote_to_it() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    recorder = Recorder(net)
    recorder.attach()
    for batch in range(5):
        net.path = written_to_later if batch == 2 else plain_path
        expected = plain_path(net.train(), IMAGES).sum((0, 2, 3)) / len(IMAGES)
        recording = train(net, optimizer, recorder, IMAGES)
        values = of_layer(recording, "activation", "first")
        if batch == 2:
            expected = torch.full((4,), torch.nan)
        np.testing.assert_allclose(values, expected.detach(), rtol=1e-5, err_msg=f"batch {batch}")
    recorder.detach()


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """How many tensors are concatenated, and along which dimension, in each call."""
    calls = []
    join = torch.cat

    def note(tensors: Any, *args: Any, **options: Any) -> Tensor:
        calls.append((len(tensors), *args))
        return join(tensors, *args, **options)

    monkeypatch.setattr(torch, "cat", note)
    return calls


def test_small_maps_are_summed_together(together: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(5)]
    net = nn.Sequential(nn.Conv2d(3, 4, 1), *layers)
    recorder = Recorder(net, statistics=STATISTICS)
    recorder.attach()
    for batch in range(3):
        recorder.begin_batch()
        together.clear()
        net(IMAGES).sum().backward()
        joined = together.copy()
        expected = net[:3](IMAGES).detach()
        recording = recorder.end_batch()
        for name, values in {"activation": expected, "firing": (expected > 0).float()}.items():
            mean = values.sum((0, 2, 3)) / len(IMAGES) / (1 if name == "activation" else 100)
            np.testing.assert_allclose(of_layer(recording, name, "2.0"), mean, rtol=1e-5)
        assert ((5, 1) in joined) == (batch > 0)  # 5 maps, filters side by side
    recorder.detach()


def test_small_gradients_are_summed_together(together: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(5)]
    net = nn.Sequential(nn.Conv2d(3, 4, 1), *layers, nn.Conv2d(4, 4, 1))
    maps = net[:3](IMAGES)
    (expected,) = torch.autograd.grad((net[3:](maps) ** 2).sum(), maps)
    recorder = Recorder(net, statistics=STATISTICS)
    recorder.attach()
    for batch in range(3):
        recorder.begin_batch()
        (net(IMAGES) ** 2).sum().backward()
        together.clear()
        recording = recorder.end_batch()
        assert batch == 0 or (7, 1) in together  # 7 gradients, filters side by side
        mean = expected.abs().sum((0, 2, 3)) / len(IMAGES) / 100
        np.testing.assert_allclose(of_layer(recording, "activation_gradient", "2.0"), mean, 1e-5)
        sums = expected.sum((2, 3))
        ratio = sums.mean(0).abs() / sums.std(0)
        np.testing.assert_allclose(of_layer(recording, "signal_to_noise", "2.0"), ratio, 1e-4)
    recorder.detach()


def test_a_gradient_that_waited_for_others_was_summed_with_what_a_hook_wrote_to_it() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    recorder = Recorder(net, statistics=STATISTICS)
    recorder.attach()
    values = []
    for batch in range(5):
        net.path = with_changed_gradient if batch == 2 else plain_path
        recording = train(net, optimizer, recorder, IMAGES)
        values.append(of_layer(recording, "activation_gradient", "first"))
        assert np.isfinite(of_layer(recording, "activation", "first")).all()
    recorder.detach()
    assert np.isnan(values[2]).all()
    for batch in (1, 3, 4):
        np.testing.assert_allclose(values[batch], values[0], rtol=1e-5)


def with_changed_gradient(net: Net, x: Tensor) -> Tensor:
    y = plain_path(net, x)

    def double(gradient: Tensor) -> None:
        gradient.mul_(2)

    y.register_hook(double)
    return y
