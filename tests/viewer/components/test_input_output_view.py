"""The input, the outputs and the modules between, as the page gets them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import ImagePass, ImagePrediction
from revacnn_lightning.protocol.messages import Refused
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_pass import fake_pass
from tests.viewer.tab.actions import send_command
from viewer.components.input_output_data import (
    NAME_CHARACTER,
    USUAL_NAME,
    class_name_width,
    paintable_tile_grid,
    relative_channel_magnitudes,
    uploaded_picture_side,
)
from viewer.components.input_output_view import InputOutputView
from viewer.components.module_marks import ModuleMarks
from viewer.components.network import NetworkView
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState


class Shown:
    """The parts of a tab's page that concern the way from the input to the outputs."""

    def __init__(self, follower: InProcessFollower) -> None:
        self.follower = follower
        self.tab = TabState(follower, PageLink(width=1118, height=560))
        self.tab.update()
        self.network = NetworkView(self.tab)
        self.ends = InputOutputView(self.tab, self.network)
        self.marks = ModuleMarks(self.tab, self.network)

    def deliver(self, **changes: Any) -> None:
        self.receive(self.sent_pass(**changes))

    def sent_pass(self, **changes: Any) -> ImagePass:
        training = self.follower.training
        layers = [(conv.name, conv.width) for conv in training.convs]
        return fake_pass(training.run, training.version, training.step, layers, **changes)

    def receive(self, message: object) -> None:
        assert self.follower.state is not None
        self.follower.image_passes.receive(message, self.follower.state)  # type: ignore[arg-type]
        self.update()

    def update(self) -> tuple[bool, bool, bool]:
        return self.network.update(), self.ends.update(), self.marks.update()

    @property
    def data(self) -> dict[str, Any]:
        return self.ends.root.data


@pytest.fixture
def shown(follower: InProcessFollower) -> Shown:
    found = Shown(follower)
    found.update()
    return found


def test_the_page_shows_the_input_its_channels_and_all_classes(shown: Shown) -> None:
    shown.deliver(image=None)
    data = shown.data
    assert data["input"]["subtitle"] == "3×64×64"
    assert data["input"]["source"] == "batch"
    assert [channel["name"] for channel in data["channels"]] == [
        "channel 0 (red)",
        "channel 1 (green)",
        "channel 2 (blue)",
    ]
    assert len(data["channel_y"]) == 3
    assert shown.ends.root.atlas is not None
    assert shown.ends.root.atlas.shape == (1, 64, 64, 3)
    assert len(data["rows"]) == len(data["output_y"]) == 10
    row = data["rows"][3]
    assert (row["name"], row["predicted"], row["true"]) == ("cat", True, False)
    assert data["rows"][5]["true"] is True
    assert [loss["label"] for loss in data["output"]["loss"]] == ["image", "batch"]
    assert data["output"]["more"] == ""


def test_paths_of_the_input_are_as_thick_as_the_sums_of_its_channels(shown: Shown) -> None:
    shown.deliver(channel_sums=[10.0, 40.0, 20.0])
    ends = shown.network.input_output
    assert ends is not None
    n = len(ends.paths.x)
    weights = shown.network.strokes.data["weight"]
    assert len(weights) == len(shown.network.paths.data["x"])
    inputs = weights[-n:][: len(ends.channels)]
    for channel, weight in enumerate((0.25, 1.0, 0.5)):
        np.testing.assert_allclose(inputs[ends.channels == channel], weight)
    outputs = weights[-n:][len(ends.channels) :]
    assert len(np.unique(outputs)) > 1  # as thick as the activations of the last layer


def test_nothing_is_sent_again_until_the_next_pass(shown: Shown) -> None:
    shown.deliver()
    assert shown.update() == (False, False, False)
    shown.follower.train()
    places = shown.network.paths.data
    assert shown.update() == (True, False, False)
    assert shown.network.paths.data is places
    shown.deliver(channel_sums=[1.0, 1.0, 1.0])
    assert shown.network.paths.data is places


def test_another_number_of_channels_moves_no_column(shown: Shown) -> None:
    shown.deliver()
    nodes = shown.network.nodes.data
    photo = np.ones((13, 8, 8), np.float16)
    shown.receive(pass_of(shown, photo))
    assert shown.network.nodes.data is nodes
    assert len(shown.data["channels"]) == 13


def pass_of(shown: Shown, image: np.ndarray) -> ImagePass:
    """Return a pass of another input."""
    shape = list(image.shape)
    sums = [1.0] * shape[0] if len(shape) > 1 else []
    return replace(shown.sent_pass(), image=image, input_shape=shape, channel_sums=sums)


@pytest.mark.parametrize("channels", [1, 2, 4, 13, 200])
def test_any_number_of_channels_is_shown(shown: Shown, channels: int) -> None:
    shown.receive(pass_of(shown, np.ones((channels, 8, 8), np.float16)))
    assert len(shown.data["channels"]) == min(16, channels)
    assert shown.ends.root.atlas is not None
    assert shown.ends.root.atlas.shape == (1, 8, 8, 3)
    if channels == 200:
        assert shown.data["channels"][0]["name"] == "channels 0–11"


@pytest.mark.parametrize("shape", [(1, 300), (20,), (2, 50)])
def test_a_signal_is_shown_as_curves(shown: Shown, shape: tuple[int, ...]) -> None:
    shown.receive(pass_of(shown, np.ones(shape, np.float16)))
    assert shown.data["signal"].shape == (1, 20) if len(shape) == 1 else shape
    left, _, right, _ = shown.data["picture"]
    assert right - left > 40


def test_a_volume_says_that_it_is_a_slice(shown: Shown) -> None:
    shown.deliver(input_shape=[1, 9, 64, 64], channel_sums=[3.0])
    assert shown.data["input"]["slice"] == "middle slice"
    assert len(shown.data["channels"]) == 1


def test_a_batch_without_an_input_says_so_in_one_line(shown: Shown) -> None:
    empty = np.zeros(0, np.float16)
    nothing: dict[str, Any] = {"input_shape": [], "channel_sums": [], "readers": []}
    sent = replace(shown.sent_pass(**nothing), image=empty, prediction=None, output_shapes=[])
    shown.receive(replace(sent, input_note="This batch holds no image."))
    assert shown.data["input"]["note"] == "This batch holds no image."
    assert shown.data["channels"] == shown.data["rows"] == []
    assert len(shown.data["output_y"]) == 0


def test_why_an_image_cannot_be_chosen_was_gone_with_the_next_pass(shown: Shown) -> None:
    details = shown.follower.layer_details
    layer = shown.follower.training.convs[0].name
    shown.deliver()
    details.image_refusal = "this training has no validation images"
    shown.update()
    shown.deliver(channel_sums=[1.0, 1.0, 1.0])
    assert shown.data["input"]["note"] == "this training has no validation images"
    details.request_newest(layer, "tsne")
    details.show_image_if_known(layer, None)
    shown.update()
    assert shown.data["input"]["note"] == ""


def test_of_many_classes_the_top_ones_and_the_truth_are_shown(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    shown = Shown(make_follower("alexnet"))
    shown.update()
    shown.deliver(classes=1000)
    rows = shown.data["rows"]
    assert len(rows) == len(shown.data["output_y"]) == 6
    assert shown.data["output"]["more"] == "+994 more"
    assert sum(row["true"] for row in rows) == 1
    assert rows[0]["predicted"]


def test_other_outputs_are_shown_as_their_shape(shown: Shown) -> None:
    note = "The model returns a tensor of shape 1×21×64×64, not one score per class."
    shown.deliver(
        prediction=ImagePrediction(0, 0, note=note),
        class_count=0,
        loss=None,
        output_shapes=[[21, 64, 64], [4]],
    )
    assert shown.data["rows"] == []
    assert shown.data["output"]["shapes"] == ["21×64×64", "4"]
    assert shown.data["output"]["note"] == ""
    assert shown.data["output"]["details"] == note
    assert len(shown.data["output_y"]) == 1


def test_a_training_that_refuses_says_why(shown: Shown) -> None:
    passes = shown.follower.image_passes
    passes.tick(shown.follower.state, lambda _: "p1")
    shown.receive(Refused("p1", "no input in this recording"))
    assert shown.data["input"]["note"] == "no input in this recording"


def test_the_modules_between_are_marked_and_can_be_hidden(shown: Shown) -> None:
    assert shown.marks.root.data == {"shown": True, "available": False, "rows": []}
    shown.deliver()
    rows = shown.marks.root.data["rows"]
    assert [row["label"] for row in rows[:2]] == ["batch norm", "ReLU"]
    assert rows[0]["modules"] == [
        {"name": "bn1", "type": "BatchNorm2d", "before": "8×64×64", "after": "8×64×64"}
    ]
    assert len(rows) == 8
    send_command(shown.tab, "toggle_module_marks")
    shown.update()
    assert shown.marks.root.data == {"shown": False, "available": True, "rows": []}


def test_a_large_network_hides_its_modules_at_first(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    shown = Shown(make_follower("resnet50"))
    shown.update()
    shown.deliver()
    assert shown.marks.root.data["rows"] == []
    assert shown.marks.root.data["available"]
    send_command(shown.tab, "toggle_module_marks")
    shown.update()
    assert shown.marks.root.data["rows"]


def test_the_table_of_layers_requests_no_pass(shown: Shown) -> None:
    requests: list[Any] = []
    send_command(shown.tab, "set_main_view", option="table")
    passes = shown.follower.image_passes
    passes._last_visible = float("-inf")
    shown.update()
    passes.tick(shown.follower.state, lambda request: requests.append(request) or "p")  # type: ignore[func-returns-value]
    assert requests == []


def test_the_weights_of_channels_without_any_value_are_zero() -> None:
    sent = fake_pass("run", 0, 0, [("conv1", 4)], channel_sums=[0.0, 0.0, 0.0])
    assert relative_channel_magnitudes(sent, 3).tolist() == [0, 0, 0]
    assert relative_channel_magnitudes(None, 2).tolist() == [1, 1]


@pytest.mark.filterwarnings("error")
def test_an_input_that_no_known_layer_reads_has_no_channels(shown: Shown) -> None:
    shown.deliver(readers=[], output_layers=[], input_shape=[7, 64, 64], channel_sums=[1.0] * 7)
    assert shown.data["channels"] == []
    assert shown.ends.root.atlas is not None
    assert len(shown.ends.root.atlas) == 1


def test_a_picture_is_shown_in_all_views_and_painted_over(shown: Shown) -> None:
    shown.deliver()
    pixels = base64.b64encode(bytes(3 * 4 * 5)).decode()
    send_command(shown.tab, "show_picture", pixels=pixels, height=4, width=5)
    shown.update()
    (picture,) = shown.follower.training.made_images
    shown.deliver(image=picture.index, image_note="prepared")
    facts = shown.data["input"]
    assert (facts["source"], facts["image_note"]) == ("your image", "prepared")
    assert facts["paint"]["origin"] == str(picture.index)

    patch = {"top": 0, "left": 0, "bottom": 0.5, "right": 0.5, "color": None}
    send_command(shown.tab, "paint_over_shown_image", patches=[patch])
    painted = shown.follower.training.made_images[-1]
    assert painted.source == picture.index
    shown.update()
    facts = shown.data["input"]["paint"]
    assert (facts["origin"], facts["is_painted"]) == (str(picture.index), True)
    assert facts["is_waiting"]

    send_command(shown.tab, "step_validation_image", dx=1)  # the first validation image comes next
    assert shown.follower.layer_details.image == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"pixels": "AAAA", "height": 9, "width": 9},
        {"pixels": "", "height": 0, "width": 0},
        {"pixels": "AAAA", "height": -1, "width": -1},
        {"pixels": "no base64!", "height": 1, "width": 1},
    ],
)
def test_a_picture_of_another_size_than_it_says_is_ignored(
    shown: Shown, arguments: dict[str, Any]
) -> None:
    shown.deliver()
    send_command(shown.tab, "show_picture", **arguments)
    assert shown.follower.training.made_images == []


def test_large_images_are_painted_in_tiles_and_small_ones_in_pixels() -> None:
    assert paintable_tile_grid([3, 224, 8]) == [16, 8]
    assert paintable_tile_grid([10]) == [0, 0]
    assert uploaded_picture_side([3, 32, 20]) == 48
    assert uploaded_picture_side([3, 512, 512]) == 320


def test_an_input_that_no_first_layer_reads_stands_before_its_readers(shown: Shown) -> None:
    shown.deliver(readers=["conv2"], generated=np.ones((3, 64, 64), np.float16))
    layout, data = shown.network.layout, shown.data
    assert layout is not None
    assert layout.input_rank == 1
    assert layout.boxes[0].right < data["picture"][0] < data["channel_x"] < layout.boxes[1].left
    assert data["picture"][3] < data["generated"][1]
    assert shown.ends.root.atlas is not None
    assert shown.ends.root.atlas.shape == (2, 64, 64, 3)
    shown.deliver(readers=["conv1"])
    assert shown.data["generated"] is None
    assert shown.data["input_x"] == 0
    assert shown.ends.root.atlas.shape == (1, 64, 64, 3)


def test_the_room_for_the_names_of_classes_stays(shown: Shown) -> None:
    assert class_name_width(shown.sent_pass()) == len("airplane") * NAME_CHARACTER
    many = shown.sent_pass(classes=1000)
    assert class_name_width(many) == USUAL_NAME * NAME_CHARACTER
    shown.deliver()
    nodes = shown.network.nodes.data
    shown.deliver(prediction=ImagePrediction(1, 0, note="failed"), class_count=0)
    assert shown.network.nodes.data is nodes


def test_classes_that_have_a_map_are_named_and_none_is_the_prediction(shown: Shown) -> None:
    sent = shown.sent_pass(image=None)
    assert sent.prediction is not None
    prediction = replace(sent.prediction, truth=None)
    shown.receive(replace(sent, prediction=prediction, loss=None, class_map_shape=[64, 48]))
    assert shown.data["output"]["subtitle"] == "10 classes, 64×48"
    assert shown.data["output"]["of_maps"]
    assert [row["name"] for row in shown.data["rows"]][3] == "cat"
    assert not any(row["predicted"] or row["true"] for row in shown.data["rows"])
