"""What a viewer is told of what a filter looks for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning import ReVACNN
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.client import Run
from revacnn_lightning.protocol.messages import FilterInspection
from revacnn_lightning.protocol.requests import ControlRun, InspectFilter, RemoveFilters
from revacnn_lightning.runtime import filter_inspection as looking
from revacnn_lightning.runtime.filter_inspection import MOST_INSPECTED, InspectionCollector
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox
from tests.runtime.test_controls import train_with
from tests.small import At, TwoConvs, fit
from tests.telemetry import reference


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Net(nn.Sequential):
    def __init__(self, channels: int = 3) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)
        )


class World:
    """A network in training, batch by batch, and what is inspected of it."""

    def __init__(self, model: nn.Module | None = None, **options: Any) -> None:
        self.model = Net() if model is None else model
        self.clock = Clock()
        self.recorder = Recorder(self.model)
        self.recorder.attach()
        options = {"forward": self.model, "images": self.validation_image, **options}
        self.looking = InspectionCollector(self.recorder, self.model, clock=self.clock, **options)
        self.step = 0

    def validation_image(self, index: int) -> Tensor:
        if index > 3:
            raise EditRefusedError("no such image")
        return torch.full((3, 10, 10), float(index)) + torch.eye(10)

    def batch(self, images: Tensor | None = None, told: Any = "images") -> list[FilterInspection]:
        """Train a batch; ``told``: what we are told that its images are, if not themselves."""
        if images is None:
            generator = torch.Generator().manual_seed(self.step)
            images = torch.randn(6, 3, 10, 10, generator=generator)
        self.recorder.begin_batch()
        self.model.zero_grad()
        reference.train_step(self.model, images)
        self.recorder.end_batch()
        told = images if isinstance(told, str) else told
        sent = self.looking.read(run="r", version=1, step=self.step, images=lambda: told)
        self.step += 1
        return sent

    def later(self, seconds: float) -> None:
        self.clock.now += seconds


@pytest.fixture
def world():
    world = World()
    world.batch()  # shows the recorder the way through the network
    yield world
    world.recorder.detach()


def test_an_inspection_holds_the_images_the_shown_one_and_what_in_it_excites(world: World):
    world.looking.inspect(InspectFilter("0", 2))
    [sent] = world.batch()
    assert (sent.run, sent.version, sent.step, sent.layer, sent.filter) == ("r", 1, 1, "0", 2)
    assert 1 <= len(sent.top_images) <= 6
    assert all(find.crop.shape == (3, 3, 3) for find in sent.top_images)
    assert [find.response for find in sent.top_images] == sorted(
        (find.response for find in sent.top_images), reverse=True
    )
    assert sent.receptive_field == (3, 3)
    assert sent.image.shape == (3, 10, 10)
    assert sent.image_size == (10, 10)
    assert sent.response > 0
    assert sent.attribution_refusal == ""
    assert sent.deconvolution.shape == sent.guided_backpropagation.shape == (3, 3, 3)
    assert np.abs(sent.guided_backpropagation).max() == 1
    box = PixelBox(*sent.box)
    assert (box.bottom - box.top, box.right - box.left) == (3, 3)


def test_the_crop_is_where_the_response_is_strongest(world: World):
    with torch.no_grad():
        world.model[0].weight.zero_()
        world.model[0].weight[1] = 1.0
        world.model[0].bias.zero_()
    world.looking.inspect(InspectFilter("0", 1))
    images = torch.zeros(2, 3, 10, 10)
    images[1, :, 4:7, 5:8] = 1.0  # 3×3, as the filter
    [sent] = world.batch(images)
    assert sent.top_images[0].box == (4, 5, 7, 8)
    assert (sent.top_images[0].crop == 255).all()


def test_nothing_is_done_when_nobody_inspects(world: World, monkeypatch: pytest.MonkeyPatch):
    def no(*_: object) -> None:
        raise AssertionError("the network was run")

    monkeypatch.setattr(looking, "trace_activation", no)
    monkeypatch.setattr(looking, "attribute", no)

    def images() -> Tensor:
        raise AssertionError("the images were looked for")

    for _ in range(3):
        world.batch()
        assert world.looking.read(run="r", version=1, step=1, images=images) == []
    assert world.recorder.responses.filters == frozenset()


def test_images_gather_on_every_batch_and_are_told_now_and_then(world: World):
    world.looking.inspect(InspectFilter("0", 2))
    sent = []
    for _ in range(30):  # in 3 seconds
        sent.append(bool(world.batch()))
        world.later(0.1)
    assert sum(sent) <= 7
    world.later(1000)
    world.looking.inspect(InspectFilter("0", 2))
    [last] = world.batch()
    assert len(last.top_images) == 9
    assert len({find.step for find in last.top_images}) > 2


def test_interest_expires_and_all_is_let_go_of(world: World):
    world.looking.inspect(InspectFilter("0", 2))
    world.batch()
    assert world.recorder.external_overhead > 0
    world.later(11)
    assert world.batch() == []
    assert world.recorder.responses.filters == frozenset()
    assert world.recorder.external_overhead == 0
    assert not world.looking._inspected
    assert not world.looking._examined


def test_no_more_filters_at_a_time_than_a_few(world: World):
    for index in range(4):
        world.looking.inspect(InspectFilter("0", index))
    for index in range(3):
        world.looking.inspect(InspectFilter("3", index))
    world.looking.inspect(InspectFilter("0", 3))
    inspected = {("3", 0), ("3", 1), ("3", 2), ("0", 3)}
    assert world.recorder.responses.filters == inspected
    assert len(inspected) == MOST_INSPECTED


def test_a_dear_network_is_run_less_often(world: World, monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(looking.time, "perf_counter", lambda: now[0])
    slowly = looking.attribute

    def attribute(*arguments: Any) -> Any:
        now[0] += 0.5  # seconds
        return slowly(*arguments)

    monkeypatch.setattr(looking, "attribute", attribute)
    sent = 0
    for _ in range(400):
        world.looking.inspect(InspectFilter("0", 2))
        sent += len(world.batch())
        world.later(0.5)
    assert sent == pytest.approx(200 * looking.SHARE / 0.5, abs=2)
    assert world.recorder.external_overhead == pytest.approx(looking.SHARE, rel=1.0)


def test_what_it_costs_counts_in_the_budget(world: World, monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[float, dict[str, float], float]] = []

    def update(step: float, costs: dict[str, float], fixed: float) -> bool:
        told.append((step, costs, fixed))
        return False

    world.looking.inspect(InspectFilter("0", 2))
    world.batch()
    monkeypatch.setattr(world.recorder._schedule._governor, "update", update)
    world.recorder.external_overhead = 0.5
    world.batch()
    [(step, costs, fixed)] = told
    assert costs["top_images"] > 0
    assert fixed > 0.5 * step


def test_a_chosen_image_is_shown_instead_of_the_first_of_the_batch(world: World):
    world.looking.inspect(InspectFilter("0", 2))
    world.batch()
    world.looking.inspect(InspectFilter("0", 2, image_index=3))
    [sent] = world.batch()
    assert sent.image_index == 3
    expected = world.validation_image(3)
    np.testing.assert_allclose(sent.image, expected / expected.max(), atol=1e-3)
    with pytest.raises(EditRefusedError, match="no such image"):
        world.looking.inspect(InspectFilter("0", 2, image_index=4))


@pytest.mark.parametrize(
    ("layer", "index", "why"),
    [("9", 0, "no convolution 9"), ("0", 4, "filters 0 to 3"), ("0", -1, "filters 0 to 3")],
)
def test_filters_that_do_not_exist_are_refused(world: World, layer: str, index: int, why: str):
    with pytest.raises(EditRefusedError, match=why):
        world.looking.inspect(InspectFilter(layer, index))


def test_without_a_forward_of_images_the_images_are_shown_whole_and_it_says_why():
    world = World(forward=None)
    world.batch()
    world.looking.inspect(InspectFilter("0", 2))
    [sent] = world.batch()
    world.recorder.detach()
    assert all(find.crop.shape == (3, 10, 10) for find in sent.top_images)
    assert sent.top_images
    assert "ReVACNN(forward=...)" in sent.attribution_refusal
    assert sent.receptive_field == (0, 0)
    assert len(sent.deconvolution) == 0


def test_a_forward_that_fails_costs_the_pictures_and_no_more():
    def forward(images: Tensor) -> Tensor:
        raise ValueError("only pairs of images")

    world = World(forward=forward)
    world.batch()
    world.looking.inspect(InspectFilter("0", 2))
    [sent] = world.batch()
    world.recorder.detach()
    assert "only pairs of images" in sent.attribution_refusal
    assert sent.top_images


def test_a_process_among_several_does_not_run_the_network_by_itself():
    world = World(cannot="this training runs in 2 processes")
    world.batch()
    world.looking.inspect(InspectFilter("0", 2))
    [sent] = world.batch()
    world.recorder.detach()
    assert sent.attribution_refusal == "this training runs in 2 processes"
    assert sent.top_images


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (None, "holds no images"),
        (torch.zeros(6, 10, 10), "holds no images"),
        (torch.zeros(3, 3, 10, 10), "6 maps of a batch of 3"),
    ],
)
def test_batches_without_an_image_for_each_map_are_no_fault(world: World, told: Any, why: str):
    world.looking.inspect(InspectFilter("0", 2))
    [sent] = world.batch(told=told)
    assert sent.top_images == []
    assert why in sent.top_images_note


def test_maps_that_are_not_a_number_are_no_fault(world: World):
    world.looking.inspect(InspectFilter("0", 2))
    images = torch.randn(6, 3, 10, 10)
    images[:5] = torch.nan
    with torch.no_grad():  # in training mode one NaN would be everywhere
        world.model.eval()
    [sent] = world.batch(images)
    assert len(sent.top_images) <= 1
    assert math.isnan(sent.response)
    assert np.isfinite(sent.top_images[0].response if sent.top_images else 0.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_coloured_images(channels: int):
    model = Net(channels)
    world = World(model)
    world.batch(torch.randn(4, channels, 10, 10))
    world.looking.inspect(InspectFilter("3", 2))
    [sent] = world.batch(torch.randn(4, channels, 10, 10))
    world.recorder.detach()
    assert {find.crop.shape for find in sent.top_images} <= {(channels, 5, 5)}
    assert sent.guided_backpropagation.shape == (channels, 5, 5)


class Noisy(TwoConvs):
    """With all that a careless forward could leave traces in."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4).double()
        self.drop = nn.Dropout(0.3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.drop(self.relu1(self.bn(self.conv1(images))))
        return self.linear(self.relu2(self.conv2(hidden)).flatten(1))


class Functional(TwoConvs):
    def forward(self, images: Tensor) -> Tensor:
        hidden = nn.functional.relu(self.conv2(nn.functional.relu(self.conv1(images))))
        return self.linear(hidden.flatten(1))


def trained(tmp_path, inspects: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list, Tensor]:
    monkeypatch.setattr(looking, "INSPECTION_SECONDS", 0.0)
    monkeypatch.setattr(looking, "GATHERING_SECONDS", 0.0)
    monkeypatch.setattr(looking, "SHARE", 1e9)
    sent: list[FilterInspection] = []
    callback = ReVACNN()

    def inspect(trainer: Any, module: Any) -> None:
        session = callback._session
        session._looking.inspect(InspectFilter("conv2", 1))
        publish = session._publish
        session._publish = lambda message: (
            sent.append(message) if isinstance(message, FilterInspection) else None,
            publish(message),
        )

    torch.manual_seed(7)
    model = Noisy()
    torch.manual_seed(8)
    fit(model, [callback, *([At(2, inspect)] if inspects else [])], max_epochs=2)
    return model, sent, torch.get_rng_state()


def test_a_training_is_bit_by_bit_the_same_with_and_without(tmp_path, monkeypatch):
    plain, none, random = trained(tmp_path, False, monkeypatch)
    looked, sent, random_after = trained(tmp_path, True, monkeypatch)
    assert none == []
    assert len(sent) > 5
    assert all(one.attribution_refusal == "" and one.guided_backpropagation.size for one in sent)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, looked.state_dict()[name]), name
    assert torch.equal(random, random_after)


def test_a_filter_can_be_looked_into_while_the_run_is_paused(tmp_path):
    """Its pane waited for a batch that a paused run does not train."""

    def person(run: Run) -> dict:
        run.command(ControlRun("pause"))
        batch = run.inspect("conv2", 1)
        pinned = run.inspect("conv2", 1, image_index=5)
        run.command(ControlRun("stop"))
        return {"batch": batch, "pinned": pinned}

    seen, _ = train_with(person, tmp_path, validate=True)
    assert seen["batch"].image.shape == (1, 6, 6)
    assert seen["batch"].attribution_refusal == ""
    assert seen["pinned"].image_index == 5
    assert seen["pinned"].step == seen["batch"].step


def test_from_python(tmp_path):
    def person(run: Run) -> dict:
        first = run.inspect("conv2", 1)
        with pytest.raises(EditRefusedError, match="filters 0 to 2"):
            run.inspect("conv2", 7)
        pinned = run.inspect("conv2", 1, image_index=5)
        run.command(ControlRun("stop"))
        return {"first": first, "pinned": pinned}

    seen, _ = train_with(person, tmp_path, validate=True)
    assert (seen["first"].layer, seen["first"].filter) == ("conv2", 1)
    assert seen["first"].attribution_refusal == ""
    assert seen["first"].receptive_field == (5, 5)
    assert seen["pinned"].image_index == 5


def test_a_filter_that_is_removed_while_it_is_inspected(tmp_path):
    def person(run: Run) -> dict:
        run.inspect("conv1", 3)
        before = run.structure.version
        run.apply(RemoveFilters("conv1", [3]))
        stale = None
        try:
            run._wait_for_reply(run.request(InspectFilter("conv1", 3), version=before), 10)
        except EditRefusedError as error:
            stale = str(error)
        with pytest.raises(EditRefusedError, match="filters 0 to 2"):
            run.inspect("conv1", 3)
        again = run.inspect("conv1", 2)
        while not again.top_images:  # the first batch of a changed network shows the way through it
            again = run.inspect("conv1", 2)
        run.command(ControlRun("stop"))
        return {"stale": stale, "again": again}

    seen, _ = train_with(person, tmp_path)
    assert "look again" in seen["stale"]
    assert seen["again"].version == 1
    assert all(find.step >= 0 for find in seen["again"].top_images)


def test_a_layer_that_is_removed_while_it_is_inspected(world: World):
    world.looking.inspect(InspectFilter("3", 1))
    world.batch()
    world.model[3] = nn.Identity()
    world.recorder.update_structure()
    world.looking.forget()
    assert world.batch() == []
    with pytest.raises(EditRefusedError, match="no convolution 3"):
        world.looking.inspect(InspectFilter("3", 1))


def test_a_network_whose_relus_are_functions_says_that_it_cannot(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.runtime.test_controls.TwoConvs", Functional)

    def person(run: Run) -> dict:
        seen = {"conv1": run.inspect("conv1", 0), "conv2": run.inspect("conv2", 0)}
        run.command(ControlRun("stop"))
        return seen

    seen, _ = train_with(person, tmp_path)
    assert "functional ReLU" in seen["conv2"].attribution_refusal
    assert seen["conv2"].receptive_field == (5, 5)
    assert seen["conv1"].attribution_refusal == ""  # nothing lies before it
