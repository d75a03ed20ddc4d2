"""What activates an inspected filter: top images and attributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning import (
    ControlRun,
    EditRefusedError,
    FilterInspection,
    RemoveFilters,
    ReVACNN,
    Run,
)
from revacnn_lightning.protocol.requests import InspectFilter
from revacnn_lightning.runtime import filter_inspection, image_attribution
from revacnn_lightning.runtime.batch import BatchContext, Progress, TrainingBatch
from revacnn_lightning.runtime.filter_inspection import (
    MAX_INSPECTED,
    OVERHEAD,
    FilterInspectionCollector,
)
from revacnn_lightning.runtime.input_images import DataAndViewerImages
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox
from tests.manual_clock import ManualClock
from tests.runtime.live_run import train_with
from tests.small import At, TwoConvs, fit
from tests.telemetry import reference


class Net(nn.Sequential):
    def __init__(self, channels: int = 3) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)
        )


class InspectedRun:
    """A network that trains batch by batch while its filters are inspected."""

    def __init__(self, model: nn.Module | None = None, **options: Any) -> None:
        self.model = Net() if model is None else model
        self.clock = ManualClock(seconds_per_reading=1e-6)
        self.recorder = Recorder(self.model)
        self.recorder.attach()
        images = DataAndViewerImages(self.validation_image)
        options = {"forward": self.model, "images": images, **options}
        self.collector = FilterInspectionCollector(
            self.recorder, self.model, clock=self.clock, **options
        )
        self.step = 0

    def validation_image(self, index: int) -> Tensor:
        if index > 3:
            raise EditRefusedError("no such image")
        return torch.full((3, 10, 10), float(index)) + torch.eye(10)

    def train_batch(
        self, images: Tensor | None = None, reported: Any = "images"
    ) -> list[FilterInspection]:
        """Train a batch; ``reported``: what the context reports as its images, if not those."""
        if images is None:
            generator = torch.Generator().manual_seed(self.step)
            images = torch.randn(6, 3, 10, 10, generator=generator)
        self.recorder.begin_batch()
        self.model.zero_grad()
        reference.train_step(self.model, images)
        self.recorder.end_batch()
        reported = images if isinstance(reported, str) else reported
        sent = self.collector.collect(self.context(lambda: reported))
        self.step += 1
        return sent

    def context(self, get_images: Callable[[], Tensor | None]) -> BatchContext:
        return BatchContext("r", 1, TrainingBatch(Progress(self.step), get_images=get_images))

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds


@pytest.fixture
def run():
    run = InspectedRun()
    run.train_batch()  # shows the recorder the order of the layers
    yield run
    run.recorder.detach()


def test_an_inspection_holds_top_images_and_an_attribution(run: InspectedRun):
    run.collector.select(InspectFilter("0", 2))
    [sent] = run.train_batch()
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


def test_crops_show_the_strongest_response(run: InspectedRun):
    with torch.no_grad():
        run.model[0].weight.zero_()
        run.model[0].weight[1] = 1.0
        run.model[0].bias.zero_()
    run.collector.select(InspectFilter("0", 1))
    images = torch.zeros(2, 3, 10, 10)
    images[1, :, 4:7, 5:8] = 1.0  # 3×3, as the filter
    [sent] = run.train_batch(images)
    assert sent.top_images[0].box == (4, 5, 7, 8)
    assert (sent.top_images[0].crop == 255).all()


def test_without_a_selection_nothing_is_computed(
    run: InspectedRun, monkeypatch: pytest.MonkeyPatch
):
    def no(*_: object) -> None:
        raise AssertionError("the network must not run")

    monkeypatch.setattr(image_attribution, "trace_activation", no)
    monkeypatch.setattr(image_attribution, "attribute_filter_response", no)

    def images() -> Tensor:
        raise AssertionError("the images must not be read")

    for _ in range(3):
        run.train_batch()
        assert run.collector.collect(run.context(images)) == []
    assert run.recorder.responses.filters == frozenset()


def test_top_images_are_collected_from_every_batch_and_sent_less_often(run: InspectedRun):
    run.collector.select(InspectFilter("0", 2))
    sent = []
    for _ in range(30):  # in 3 seconds
        sent.append(bool(run.train_batch()))
        run.advance(0.1)
    assert sum(sent) <= 7
    run.advance(1000)
    run.collector.select(InspectFilter("0", 2))
    [last] = run.train_batch()
    assert len(last.top_images) == 9
    assert len({find.step for find in last.top_images}) > 2


def test_selections_expire_and_release_everything(run: InspectedRun):
    run.collector.select(InspectFilter("0", 2))
    run.train_batch()
    assert run.recorder.external_overheads[OVERHEAD] > 0
    run.advance(11)
    assert run.train_batch() == []
    assert run.recorder.responses.filters == frozenset()
    assert not run.recorder.external_overheads
    assert not run.collector._inspected
    assert not run.collector._attributor._traces


def test_the_number_of_inspected_filters_is_limited(run: InspectedRun):
    for index in range(4):
        run.collector.select(InspectFilter("0", index))
    for index in range(3):
        run.collector.select(InspectFilter("3", index))
    run.collector.select(InspectFilter("0", 3))
    inspected = {("3", 0), ("3", 1), ("3", 2), ("0", 3)}
    assert run.recorder.responses.filters == inspected
    assert len(inspected) == MAX_INSPECTED


def test_an_expensive_network_is_inspected_less_often(
    run: InspectedRun, monkeypatch: pytest.MonkeyPatch
):
    original = image_attribution.attribute_filter_response

    def attribute(*arguments: Any) -> Any:
        run.advance(0.5)
        return original(*arguments)

    monkeypatch.setattr(image_attribution, "attribute_filter_response", attribute)
    sent = 0
    for _ in range(400):
        run.collector.select(InspectFilter("0", 2))
        sent += len(run.train_batch())
        run.advance(0.5)
    assert sent == pytest.approx(200 * filter_inspection.MAX_TIME_SHARE / 0.5, abs=2)
    assert run.recorder.external_overheads[OVERHEAD] == pytest.approx(
        filter_inspection.MAX_TIME_SHARE, rel=1.0
    )


def test_the_cost_of_inspections_counts_towards_the_overhead(
    run: InspectedRun, monkeypatch: pytest.MonkeyPatch
):
    updates: list[tuple[float, dict[str, float], float]] = []

    def update(step: float, costs: dict[str, float], fixed: float) -> bool:
        updates.append((step, costs, fixed))
        return False

    run.collector.select(InspectFilter("0", 2))
    run.train_batch()
    monkeypatch.setattr(run.recorder._schedule._governor, "update", update)
    run.recorder.external_overheads["test"] = 0.5
    run.train_batch()
    [(step, costs, fixed)] = updates
    assert costs["top_images"] > 0
    assert fixed > 0.5 * step


def test_a_validation_image_replaces_the_first_of_the_batch(run: InspectedRun):
    run.collector.select(InspectFilter("0", 2))
    run.train_batch()
    run.collector.select(InspectFilter("0", 2, image_index=3))
    [sent] = run.train_batch()
    assert sent.image_index == 3
    expected = run.validation_image(3)
    np.testing.assert_allclose(sent.image, expected / expected.max(), atol=1e-3)
    with pytest.raises(EditRefusedError, match="no such image"):
        run.collector.select(InspectFilter("0", 2, image_index=4))


@pytest.mark.parametrize(
    ("layer", "index", "why"),
    [("9", 0, "no watched layer 9"), ("0", 4, "filters 0 to 3"), ("0", -1, "filters 0 to 3")],
)
def test_unknown_filters_are_refused(run: InspectedRun, layer: str, index: int, why: str):
    with pytest.raises(EditRefusedError, match=why):
        run.collector.select(InspectFilter(layer, index))


def test_without_a_forward_of_images_top_images_are_not_cropped():
    run = InspectedRun(forward=None)
    run.train_batch()
    run.collector.select(InspectFilter("0", 2))
    [sent] = run.train_batch()
    run.recorder.detach()
    assert all(find.crop.shape == (3, 10, 10) for find in sent.top_images)
    assert sent.top_images
    assert "the option forward=..." in sent.attribution_refusal
    assert sent.receptive_field == (0, 0)
    assert len(sent.deconvolution) == 0


def test_a_failing_forward_costs_only_the_attribution():
    def forward(images: Tensor) -> Tensor:
        raise ValueError("only pairs of images")

    run = InspectedRun(forward=forward)
    run.train_batch()
    run.collector.select(InspectFilter("0", 2))
    [sent] = run.train_batch()
    run.recorder.detach()
    assert "only pairs of images" in sent.attribution_refusal
    assert sent.top_images


def test_one_of_several_processes_does_not_run_the_network():
    run = InspectedRun(refusal="this training runs in 2 processes")
    run.train_batch()
    run.collector.select(InspectFilter("0", 2))
    [sent] = run.train_batch()
    run.recorder.detach()
    assert sent.attribution_refusal == "this training runs in 2 processes"
    assert sent.top_images


@pytest.mark.parametrize(
    ("reported", "why"),
    [
        (None, "holds no images"),
        (torch.zeros(6), "a row of numbers"),
        (torch.zeros(6, 3, 2, 2, 2, 2), "4 dimensions besides its channels"),
        (torch.zeros(3, 3, 10, 10), "6 activation maps to 3 images"),
    ],
)
def test_batches_without_an_image_per_map_have_no_top_images(
    run: InspectedRun, reported: Any, why: str
):
    run.collector.select(InspectFilter("0", 2))
    [sent] = run.train_batch(reported=reported)
    assert sent.top_images == []
    assert why in sent.top_images_note


def test_an_inspection_of_a_chosen_row_of_numbers_ended_the_monitoring(
    run: InspectedRun, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run.collector._images, "_get_image", lambda _: torch.rand(20))
    run.collector.select(InspectFilter("0", 2, image_index=0))
    [sent] = run.train_batch()
    assert sent.image_size == (1, 20)
    assert "a row of numbers" in sent.attribution_refusal


def test_nan_responses_are_ignored(run: InspectedRun):
    run.collector.select(InspectFilter("0", 2))
    images = torch.randn(6, 3, 10, 10)
    images[:5] = torch.nan
    with torch.no_grad():  # in train mode, batch norm would spread the NaN
        run.model.eval()
    [sent] = run.train_batch(images)
    assert len(sent.top_images) <= 1
    assert math.isnan(sent.response)
    assert np.isfinite(sent.top_images[0].response if sent.top_images else 0.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_color_images(channels: int):
    model = Net(channels)
    run = InspectedRun(model)
    run.train_batch(torch.randn(4, channels, 10, 10))
    run.collector.select(InspectFilter("3", 2))
    [sent] = run.train_batch(torch.randn(4, channels, 10, 10))
    run.recorder.detach()
    assert {find.crop.shape for find in sent.top_images} <= {(channels, 5, 5)}
    assert sent.guided_backpropagation.shape == (channels, 5, 5)


class Noisy(TwoConvs):
    """A network with random and with running state."""

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
    monkeypatch.setattr(filter_inspection, "INSPECTION_SECONDS", 0.0)
    monkeypatch.setattr(filter_inspection, "COLLECTING_SECONDS", 0.0)
    monkeypatch.setattr(filter_inspection, "MAX_TIME_SHARE", 1e9)
    sent: list[FilterInspection] = []
    callback = ReVACNN()

    def inspect(trainer: Any, module: Any) -> None:
        session = callback._session
        session.inspections.by_request[InspectFilter].select(InspectFilter("conv2", 1))
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


def test_inspecting_leaves_training_bit_identical(tmp_path, monkeypatch):
    plain, none, random = trained(tmp_path, False, monkeypatch)
    inspected, sent, random_after = trained(tmp_path, True, monkeypatch)
    assert none == []
    assert len(sent) > 5
    assert all(one.attribution_refusal == "" and one.guided_backpropagation.size for one in sent)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, inspected.state_dict()[name]), name
    assert torch.equal(random, random_after)


def test_a_filter_can_be_inspected_while_the_run_is_paused(tmp_path):
    """A paused run trains no batch to wait for."""

    def client(run: Run) -> dict:
        run.command(ControlRun("pause"))
        # In a validation, a pause of the first viewer lets one batch pass.
        run.wait_for(lambda run: run.status is not None and run.status.state == "paused")
        batch = run.inspect("conv2", 1)
        pinned = run.inspect("conv2", 1, image_index=5)
        preferred = run.preferred_image("conv2", 1, steps=20)
        run.command(ControlRun("stop"))
        return {"batch": batch, "pinned": pinned, "preferred": preferred}

    seen, _ = train_with(client, tmp_path, validate=True)
    assert seen["batch"].image.shape == (1, 6, 6)
    assert seen["batch"].attribution_refusal == ""
    assert seen["pinned"].image_index == 5
    assert seen["pinned"].step == seen["batch"].step
    assert seen["preferred"].steps >= 20
    assert seen["preferred"].pixels.shape == (1, 5, 5)


def test_run_inspect_returns_an_inspection(tmp_path):
    def client(run: Run) -> dict:
        first = run.inspect("conv2", 1)
        with pytest.raises(EditRefusedError, match="filters 0 to 2"):
            run.inspect("conv2", 7)
        pinned = run.inspect("conv2", 1, image_index=5)
        run.command(ControlRun("stop"))
        return {"first": first, "pinned": pinned}

    seen, _ = train_with(client, tmp_path, validate=True)
    assert (seen["first"].layer, seen["first"].filter) == ("conv2", 1)
    assert seen["first"].attribution_refusal == ""
    assert seen["first"].receptive_field == (5, 5)
    assert seen["pinned"].image_index == 5


def test_a_filter_can_be_removed_while_it_is_inspected(tmp_path):
    def client(run: Run) -> dict:
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
        while not again.top_images:
            again = run.inspect("conv1", 2)
        run.command(ControlRun("stop"))
        return {"stale": stale, "again": again}

    seen, _ = train_with(client, tmp_path)
    assert "the network has changed" in seen["stale"]
    assert seen["again"].version == 1
    assert all(find.step >= 0 for find in seen["again"].top_images)


def test_a_layer_can_be_removed_while_it_is_inspected(run: InspectedRun):
    run.collector.select(InspectFilter("3", 1))
    run.train_batch()
    run.model[3] = nn.Identity()
    run.recorder.update_structure()
    run.collector.reset()
    assert run.train_batch() == []
    with pytest.raises(EditRefusedError, match="no watched layer 3"):
        run.collector.select(InspectFilter("3", 1))


def test_functional_relus_are_refused_with_the_reason(tmp_path):
    def client(run: Run) -> dict:
        seen = {"conv1": run.inspect("conv1", 0), "conv2": run.inspect("conv2", 0)}
        run.command(ControlRun("stop"))
        return seen

    seen, _ = train_with(client, tmp_path, Functional())
    assert "functional ReLU" in seen["conv2"].attribution_refusal
    assert seen["conv2"].receptive_field == (5, 5)
    assert seen["conv1"].attribution_refusal == ""  # there is no ReLU before it
