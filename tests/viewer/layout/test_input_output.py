"""The input and the outputs beside the columns."""

from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.protocol.messages import Structure
from tests.viewer.fake_training import FakeTraining
from viewer.layout import InputOutputDimensions, NetworkLayout, compute_layout, place_input_output
from viewer.layout.folding import initially_closed_blocks
from viewer.layout.input_output import NO_NODE, guess_input_readers
from viewer.layout.input_output_space import input_output_space

SIZES = [(1118, 560), (846, 420), (372, 420)]
NETS = ["digits", "alexnet", "resnet50", "gan", "inception", "densenet121"]


def layout_of(net: str, width: float, height: float) -> tuple[Structure, NetworkLayout]:
    structure = FakeTraining(net).structure()
    closed = initially_closed_blocks([layer.name for layer in structure.layers])
    return structure, compute_layout(structure, width, height, (), closed, has_input_output=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("net", NETS)
def test_the_ends_stand_beside_the_columns_and_inside_the_view(
    net: str, size: tuple[int, int]
) -> None:
    structure, layout = layout_of(net, *size)
    last = len(structure.layers) - 1
    ends = place_input_output(layout, InputOutputDimensions((32, 48), 3, 10, (0,), (last,)))
    left = min(box.left for box in layout.boxes)
    right = max(box.right for box in layout.boxes)
    assert 0 < ends.picture.left < ends.picture.right < ends.channel_x < left
    assert right < ends.output_x < size[0]
    for places in (ends.channel_y, ends.output_y):
        assert layout.top <= places.min()
        assert places.max() <= layout.height
    assert ends.paths.x.min() >= ends.picture.right
    assert ends.paths.x1.max() <= ends.output_x
    assert len(ends.channels) > 0
    assert set(ends.channels) == {0, 1, 2}
    inputs, outputs = np.split(ends.paths.first, [len(ends.channels)])
    assert set(inputs) == {NO_NODE}
    first, end = layout.node_offsets[last : last + 2]
    assert first <= outputs.min()
    assert ends.paths.last.max() <= end
    reached = ends.paths.y1[len(ends.channels) :]
    nearest = np.abs(reached[:, None] - ends.output_y).argmin(1)
    assert set(nearest) == set(range(10))


@pytest.mark.parametrize("height", [130, 170, 200, 300])
@pytest.mark.parametrize("net", NETS)
def test_the_last_outputs_were_hidden_in_a_low_view(net: str, height: float) -> None:
    structure, layout = layout_of(net, 832, height)
    last = len(structure.layers) - 1
    for has_more in (False, True):
        shape = InputOutputDimensions((32, 48), 3, 10, (0,), (last,), has_more=has_more)
        places = place_input_output(layout, shape).output_y
        pitch = places[1] - places[0]
        assert pitch > 0
        assert places[-1] + pitch / 2 <= height - has_more * 20 + 1e-9
        assert places[0] - pitch / 2 >= layout.top - 28 - 1e-9


@pytest.mark.parametrize("channels", [1, 2, 4, 13, 16])
def test_each_channel_has_paths_of_its_own_to_all_of_the_first_layer(channels: int) -> None:
    _, layout = layout_of("digits", 1118, 560)
    ends = place_input_output(layout, InputOutputDimensions((8, 8), channels, 0, (0,), ()))
    assert set(ends.channels) == set(range(channels))
    assert len(np.unique(ends.paths.y)) == channels
    spread = ends.paths.y1.max() - ends.paths.y1.min()
    assert spread > 0.6 * layout.boxes[0].height
    assert len(ends.output_y) == 0


@pytest.mark.parametrize("size", SIZES)
def test_the_images_of_a_discriminator_stood_beside_the_generator(size: tuple[int, int]) -> None:
    structure = FakeTraining("gan").structure()
    reader = [layer.name for layer in structure.layers].index("discriminator.0")
    layout = compute_layout(structure, *size, has_input_output=True, input_readers=[reader])
    ends = place_input_output(
        layout, InputOutputDimensions((32, 32), 3, 0, (reader,), (), has_generated=True)
    )
    before = max(box.right for box in layout.boxes[:reader])
    assert layout.boxes[0].left < ends.picture.left  # the generator begins at the left
    assert before < ends.picture.left < ends.channel_x < layout.boxes[reader].left
    assert ends.generated is not None
    assert ends.picture.bottom < ends.generated.top
    assert ends.generated.bottom <= layout.height
    assert len(ends.channels) > 0
    assert ends.paths.x1.max() <= layout.boxes[reader].right
    assert max(box.right for box in layout.boxes) < size[0]


def test_an_input_that_the_first_layers_read_stays_at_the_left() -> None:
    structure, layout = layout_of("digits", 1118, 560)
    again = compute_layout(structure, 1118, 560, has_input_output=True, input_readers=[0])
    assert again.boxes == layout.boxes
    assert again.input_rank == again.input_x == 0


@pytest.mark.parametrize("size", [(1118, 560), (846, 340)])
def test_the_names_of_classes_were_cut_to_four_letters(size: tuple[int, int]) -> None:
    structure = FakeTraining("digits").structure()
    for letters in (5, 10, 14):
        layout = compute_layout(
            structure, *size, has_input_output=True, class_name_width=letters * 6.0
        )
        assert layout.space.right - layout.space.besides >= letters * 6 - 1
    narrow = compute_layout(structure, 372, 420, has_input_output=True, class_name_width=240)
    assert narrow.space.right <= 110


def test_long_names_of_classes_leave_a_network_its_headers() -> None:
    structure = FakeTraining("resnet18").structure()
    layout = compute_layout(structure, 846, 480, has_input_output=True, class_name_width=84)
    assert layout.density == "normal"


def test_without_a_pass_there_is_space_but_nothing_in_it() -> None:
    _, layout = layout_of("digits", 1118, 560)
    ends = place_input_output(layout, InputOutputDimensions())
    assert len(ends.paths.x) == len(ends.channel_y) == len(ends.output_y) == 0
    assert ends.left > 0 < ends.right


def test_the_ends_leave_a_network_its_headers() -> None:
    """With large ends, the columns of a ResNet would be too narrow for headers."""
    for width in (1118, 846):
        _, layout = layout_of("resnet18", width, 480)
        assert layout.density == "normal"
    assert (
        input_output_space(1118, 5).picture
        > input_output_space(1118, 24).picture
        > input_output_space(372, 5).picture
    )


def test_layers_that_fit_the_input_are_its_readers_where_the_forward_shows_none() -> None:
    structure, layout = layout_of("digits", 1118, 560)
    assert guess_input_readers(structure, layout, 3) == [0]
    assert guess_input_readers(structure, layout, 4) == []


def test_the_loss_below_the_outputs_was_cut_off() -> None:
    _, layout = layout_of("alexnet", 840, 314)
    for n, has_more in ((10, False), (6, True)):
        shape = InputOutputDimensions((32, 48), 3, n, (0,), (4,), has_more=has_more)
        ends = place_input_output(layout, shape)
        assert ends.output_y.max() <= layout.height - (82 if has_more else 62)
        assert np.diff(ends.output_y).min() >= 13
