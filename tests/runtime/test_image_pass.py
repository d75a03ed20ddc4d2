"""An input on its way through the network, as the training sends it."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning import (
    ControlRun,
    EditRefusedError,
    Patch,
    RemoveFilters,
    ReVACNN,
    Run,
)
from revacnn_lightning.protocol.inspections import ImagePass
from revacnn_lightning.protocol.requests import InspectImage
from revacnn_lightning.runtime.batch import BatchContext, Progress, TrainingBatch
from revacnn_lightning.runtime.batch_classes import NO_CLASSES, PIXELS, BatchClasses
from revacnn_lightning.runtime.image_pass import ImagePassCollector
from revacnn_lightning.runtime.image_predictions import LabelAndClassNames, get_no_truth
from revacnn_lightning.runtime.input_images import DataAndViewerImages
from revacnn_lightning.telemetry import Recorder
from tests.runtime.live_run import collect_until, train_with


class Net(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 5, 3, padding=1)
        self.bn = nn.BatchNorm2d(5)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(5, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.pool(self.bn(self.conv(images))).flatten(1))


class World:
    """A network whose input is shown, and a clock."""

    def __init__(self, model: nn.Module | None = None, **options: Any) -> None:
        self.model = Net() if model is None else model
        self.now = 100.0
        recorder = Recorder(self.model)
        self.images = DataAndViewerImages(self.image, options.pop("get_truth", get_no_truth))
        options = {"forward": self.model, "images": self.images, **options}
        self.collector = ImagePassCollector(recorder, self.model, clock=lambda: self.now, **options)
        self.input: Tensor | None = torch.randn(3, 6, 6)
        self.truth = LabelAndClassNames(2, ("a", "b", "c", "d"))
        self.version = 0

    def image(self, index: int) -> Tensor:
        if index > 3:
            raise EditRefusedError(f"there is no validation image {index}")
        return torch.full((3, 6, 6), float(index + 1))

    def collect(self, step: int = 7, *, is_paused: bool = False) -> list[ImagePass]:
        batch = TrainingBatch(
            Progress(step), get_input=lambda: self.input, get_truth=lambda: self.truth
        )
        return self.collector.collect(BatchContext("run", self.version, batch, is_paused))


def test_nothing_runs_while_no_viewer_shows_the_input() -> None:
    calls: list[Tensor] = []
    world = World(forward=calls.append)
    assert world.collect() == []
    world.collector.select(InspectImage())
    assert len(world.collect()) == 1
    world.now += 60  # the viewer is gone
    assert world.collect() == []
    assert len(calls) == 1


def test_a_second_request_in_a_pause_got_no_reply() -> None:
    world = World()
    for _ in range(2):
        world.collector.select(InspectImage())
        assert len(world.collect(is_paused=True)) == 1
        world.now += 5
        assert world.collect(is_paused=True) == []


def test_a_pass_shows_the_input_the_classes_and_the_modules() -> None:
    world = World()
    world.collector.select(InspectImage())
    (sent,) = world.collect()
    assert world.input is not None
    assert (sent.step, sent.version, sent.image_index) == (7, 0, None)
    assert sent.input_shape == [3, 6, 6]
    assert sent.channel_sums == pytest.approx(world.input.abs().sum((1, 2)).tolist(), rel=1e-5)
    assert sent.prediction is not None
    with torch.no_grad():
        expected = world.model.eval()(world.input[None]).softmax(1)[0]
    found = [score.probability for score in sent.prediction.classes]
    assert found == pytest.approx(expected.tolist(), rel=1e-5)
    assert [score.name for score in sent.prediction.classes] == ["a", "b", "c", "d"]
    assert sent.prediction.truth is not None
    assert sent.prediction.truth.name == "c"
    assert sent.loss == pytest.approx(-math.log(expected[2]), rel=1e-5)
    assert (sent.readers, sent.output_layers) == (["conv"], ["conv"])
    assert sent.modules is not None
    shapes = [(one.name, one.after, one.input_shape, one.output_shape) for one in sent.modules]
    assert shapes == [
        ("bn", "conv", [5, 6, 6], [5, 6, 6]),
        ("pool", "conv", [5, 6, 6], [5, 1, 1]),
        ("linear", "conv", [5], [4]),
    ]


def test_a_pass_leaves_the_model_and_the_random_state_alone() -> None:
    world = World()
    before = {name: value.clone() for name, value in world.model.state_dict().items()}
    random = torch.get_rng_state()
    world.collector.select(InspectImage())
    world.collect()
    assert world.model.training
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in world.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_modules_are_sent_once_per_structure() -> None:
    world = World()
    world.collector.select(InspectImage())
    assert world.collect()[0].modules is not None
    world.now += 5
    world.collector.select(InspectImage(known_modules=0))
    assert world.collect()[0].modules is None
    world.now += 5
    world.version = 1
    world.collector.reset()
    assert world.collect()[0].modules is not None


def test_expensive_passes_are_rare() -> None:
    def slow(images: Tensor) -> Tensor:
        world.now += 0.05
        return images.mean((2, 3))

    world = World(forward=slow)
    world.collector.select(InspectImage())
    assert world.collect()
    world.now += 9.9  # 0.05 s are 0.5 % of 10 s
    world.collector.select(InspectImage())
    assert world.collect() == []
    world.now += 60
    world.collector.select(InspectImage())
    assert world.collect()
    for index in (1, 2, 3):  # of a viewer that steps from image to image as fast as it can
        world.collector.select(InspectImage(image_index=index))
        assert world.collect() == []
    world.now += 1.8  # 0.05 s are 3 % of 1.7 s
    assert [sent.image_index for sent in world.collect()] == [3]


def test_a_chosen_image_is_shown_immediately_and_a_wrong_one_is_refused() -> None:
    world = World(get_truth=lambda index: LabelAndClassNames(index))
    world.collector.select(InspectImage())
    world.collect()
    world.now += 0.9  # long before the next pass of the same input
    world.collector.select(InspectImage(image_index=1))
    (sent,) = world.collect()
    assert sent.image_index == 1
    assert sent.image.max() == 1
    assert sent.prediction is not None
    assert sent.prediction.truth is not None
    assert sent.prediction.truth.index == 1
    with pytest.raises(EditRefusedError, match="no validation image 9"):
        world.collector.select(InspectImage(image_index=9))


def test_a_paused_run_repeats_nothing() -> None:
    world = World()
    world.collector.select(InspectImage())
    assert len(world.collect(is_paused=True)) == 1
    world.now += 5
    assert world.collect(is_paused=True) == []
    world.now += 5
    world.collector.select(InspectImage(image_index=2))
    assert len(world.collect(is_paused=True)) == 1


def test_without_an_input_the_pass_says_so() -> None:
    world = World()
    world.input = None
    world.collector.select(InspectImage())
    (sent,) = world.collect()
    assert sent.image.size == 0
    assert "holds no image" in sent.input_note
    assert sent.prediction is None


def test_a_failing_forward_costs_only_the_outputs() -> None:
    class Fails(Net):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("of the user")

    world = World(Fails())
    world.collector.select(InspectImage())
    (sent,) = world.collect()
    assert sent.image.shape == (3, 6, 6)
    assert sent.prediction is not None
    assert "RuntimeError" in sent.prediction.note
    assert (sent.class_count, sent.output_shapes, sent.loss) == (0, [], None)


def test_without_a_forward_the_input_is_still_shown() -> None:
    world = World(forward=None)
    world.collector.select(InspectImage())
    (sent,) = world.collect()
    assert sent.image.shape == (3, 6, 6)
    assert sent.prediction is not None
    assert "the option forward=..." in sent.prediction.note


def test_other_outputs_than_class_scores_are_sent_as_shapes() -> None:
    world = World(nn.Sequential(nn.Conv2d(3, 21, 3, padding=1)))
    world.collector.select(InspectImage())
    (sent,) = world.collect()
    assert sent.output_shapes == [[21, 6, 6]]
    assert sent.class_count == 0
    assert sent.prediction is not None
    assert "not one score per class" in sent.prediction.note


def test_of_many_classes_the_most_probable_ones_are_sent() -> None:
    world = World(Net(classes=1000))
    world.truth = LabelAndClassNames(999)
    world.collector.select(InspectImage())
    (sent,) = world.collect()
    assert sent.class_count == 1000
    assert sent.prediction is not None
    probabilities = [score.probability for score in sent.prediction.classes]
    assert len(probabilities) == 6
    assert probabilities == sorted(probabilities, reverse=True)
    assert sent.prediction.truth is not None
    assert sent.prediction.truth.index == 999


def test_a_wrong_number_of_class_names_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    world = World(class_names=["x", "y"])
    world.collector.select(InspectImage())
    with caplog.at_level(logging.WARNING):
        (first,) = world.collect()
        world.now += 60
        world.collector.select(InspectImage())
        (second,) = world.collect()
    for sent in (first, second):
        assert "has 2 names for 4 outputs" in sent.class_names_note
        assert sent.prediction is not None
        assert {score.name for score in sent.prediction.classes} == {""}
    assert len(caplog.records) == 1


def test_names_of_the_user_come_before_those_of_the_data() -> None:
    world = World(class_names=["w", "x", "y", "z"])
    world.collector.select(InspectImage())
    (sent,) = world.collect()
    assert sent.prediction is not None
    assert [score.name for score in sent.prediction.classes] == ["w", "x", "y", "z"]


@pytest.mark.parametrize("names", ["cat", [], [1, 2], {"cat": 1}])
def test_class_names_that_are_no_list_of_names_are_refused(names: Any) -> None:
    with pytest.raises(ValueError, match="class_names must be"):
        ReVACNN(class_names=names)


def passes(run: Run, request: InspectImage) -> ImagePass:
    run.command(request)
    return collect_until(lambda: [m for m in run.poll() if isinstance(m, ImagePass)], 1)[-1]


def test_a_training_sends_the_batch_and_chosen_images(tmp_path):
    def client(run: Run) -> dict:
        seen = {"batch": passes(run, InspectImage())}
        seen["chosen"] = passes(run, InspectImage(image_index=3))
        own = run.show_picture(np.zeros((40, 60, 3), np.uint8))
        seen["picture"] = run.predict(own)
        seen["details"] = run.detail("conv2", image_index=own)
        seen["inspection"] = run.inspect("conv2", 1, image_index=own)
        painted = run.paint_image([Patch(0, 0, 0.5, 0.5, (255, 255, 255))], image_index=own)
        seen["painted"] = run.predict(painted)
        run.apply(RemoveFilters("conv2", [0]))
        run.poll()
        seen["edited"] = run.predict(3)  # the edit may have sent the painted image once more
        run.command(ControlRun("stop"))
        return seen

    seen, _ = train_with(client, tmp_path, validate=True)
    for name in ("details", "inspection"):  # one image for all views
        sent = seen.pop(name)
        assert sent.image_index == seen["picture"].image_index
        assert np.unique(sent.image).tolist() == np.unique(seen["picture"].image).tolist()
    for name in ("picture", "painted"):
        sent = seen.pop(name)
        assert sent.prediction is not None
        assert sent.prediction.truth is None
        assert sent.prediction.classes
        assert "range" in sent.image_note
    black, white = np.unique(sent.image).tolist()
    assert black < white
    assert (sent.image[0, :3, :3] == white).all()
    assert (sent.image == white).sum() == 9
    for sent in seen.values():
        assert sent.input_shape == [1, 6, 6]
        assert sent.class_count == 2
        assert sent.prediction is not None
        assert sent.prediction.truth is not None
        assert sent.readers == ["conv1"]
        assert sent.output_layers == ["conv2"]
    assert (seen["batch"].image_index, seen["chosen"].image_index) == (None, 3)
    assert seen["edited"].version == 1
    assert [one.name for one in seen["batch"].modules] == ["relu1", "relu2", "linear"]


class Segmentation(nn.Module):
    """Returns a map of scores for each of four classes, and an auxiliary one, as torchvision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.conv(images)
        return {"out": maps, "aux": 2 * maps}


def classes_of_maps(world: World, classes: BatchClasses) -> ImagePass:
    world.collector.select(InspectImage(known_modules=-1))
    batch = TrainingBatch(
        Progress(7),
        get_input=lambda: world.input,
        get_truth=lambda: world.truth,
        get_classes=lambda: classes,
    )
    (sent,) = world.collector.collect(BatchContext("run", world.version, batch))
    return sent


def test_class_maps_have_the_names_of_the_classes_and_mean_probabilities() -> None:
    world = World(Segmentation())
    sent = classes_of_maps(world, BatchClasses(note=PIXELS))
    assert sent.prediction is not None
    assert world.input is not None
    with torch.no_grad():
        expected = world.model(world.input[None])["out"].softmax(1).mean((0, 2, 3))
    found = [score.probability for score in sent.prediction.classes]
    assert found == pytest.approx(expected.tolist(), rel=1e-5)
    assert [score.name for score in sent.prediction.classes] == ["a", "b", "c", "d"]
    assert (sent.class_count, sent.class_map_shape) == (4, [6, 6])
    assert (sent.prediction.truth, sent.loss) == (None, None)


@pytest.mark.parametrize(
    ("names", "note", "expected"),
    [
        ((), PIXELS, ["", "", "", ""]),
        ((), NO_CLASSES, None),  # such as of an autoencoder
        (("a", "b"), NO_CLASSES, None),
        (("a", "b", "c", "d"), NO_CLASSES, ["a", "b", "c", "d"]),
    ],
)
def test_maps_are_those_of_classes_only_where_names_or_targets_say_so(
    names: tuple[str, ...], note: str, expected: list[str] | None
) -> None:
    world = World(Segmentation())
    world.truth = LabelAndClassNames(None, names)
    sent = classes_of_maps(world, BatchClasses(note=note))
    assert sent.prediction is not None
    found = [score.name for score in sent.prediction.classes]
    assert found == (expected or [])
    assert sent.class_map_shape == ([6, 6] if expected else [])


def test_maps_of_a_network_whose_images_have_a_class_are_not_those_of_classes() -> None:
    sent = classes_of_maps(World(Segmentation()), BatchClasses(torch.tensor([2]), ""))
    assert sent.prediction is not None
    assert sent.prediction.classes == []
