"""Inspections of filters whose inputs are signals or volumes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.protocol.inspections import FilterInspection, VolumeSlice
from revacnn_lightning.protocol.requests import InspectFilter
from revacnn_lightning.runtime.inspected_input import (
    encode_crop,
    encode_inspected_input,
    encode_signal_response_map,
    input_height_and_width,
)
from revacnn_lightning.telemetry.inspection.attribution import (
    attribute_filter_response,
    trace_activation,
)
from tests.runtime.test_filter_inspection import InspectedRun
from tests.runtime.test_preferred_images import train_until

SHAPES = {1: (6, 2, 40), 3: (6, 2, 6, 9, 8)}


def network(dimensions: int) -> nn.Sequential:
    torch.manual_seed(dimensions)
    conv = nn.Conv1d if dimensions == 1 else nn.Conv3d
    norm = nn.BatchNorm1d if dimensions == 1 else nn.BatchNorm3d
    return nn.Sequential(conv(2, 4, 3), norm(4), nn.ReLU(), conv(4, 5, 3))


class InspectedInputs(InspectedRun):
    """Trains on signals or volumes."""

    def __init__(self, dimensions: int) -> None:
        super().__init__(network(dimensions))
        self.shape = SHAPES[dimensions]

    def samples(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.step)
        return torch.randn(self.shape, generator=generator)

    def train_batch(self, images: Tensor | None = None, **options: object) -> list:
        return super().train_batch(self.samples() if images is None else images, **options)


@pytest.fixture(params=[1, 3])
def run(request: pytest.FixtureRequest) -> Iterator[InspectedInputs]:
    run = InspectedInputs(request.param)
    run.train_batch()
    yield run
    run.recorder.detach()


@pytest.fixture
def volumes() -> Iterator[InspectedInputs]:
    run = InspectedInputs(3)
    run.train_batch()
    yield run
    run.recorder.detach()


def inspected(run: InspectedRun, request: InspectFilter) -> FilterInspection:
    run.collector.select(request)
    [sent] = run.train_batch()
    return sent


def test_a_signal_is_inspected_as_an_image_of_one_row() -> None:
    run = InspectedInputs(1)
    run.train_batch()
    sent = inspected(run, InspectFilter("3", 1))
    run.recorder.detach()
    assert (sent.top_images_note, sent.attribution_refusal) == ("", "")
    assert sent.image.shape == (2, 1, 40)
    assert (sent.image_size, sent.receptive_field) == ((1, 40), (1, 5))
    assert sent.volume is None
    left, right = sent.box[1], sent.box[3]
    assert (sent.box[0], sent.box[2], right - left) == (0, 1, 5)
    assert sent.deconvolution.shape == sent.guided_backpropagation.shape == (2, 1, 5)
    assert sent.response_map.shape == (36,)  # 40 - 2 - 2
    assert left == int(np.argmax(sent.response_map))
    assert {find.crop.shape for find in sent.top_images} == {(2, 1, 5)}
    assert all(find.volume is None for find in sent.top_images)


def test_a_slice_of_a_volume_is_sent_and_the_depth_selects_it(volumes: InspectedInputs) -> None:
    found = {}
    for depth in (0.0, 0.5, 1.0):
        volumes.step = 1  # the same batch
        found[depth] = inspected(volumes, InspectFilter("3", 1, depth=depth))
    sent = found[0.5]
    assert (sent.top_images_note, sent.attribution_refusal) == ("", "")
    assert (sent.image_size, sent.receptive_field, sent.receptive_field_depth) == (
        (9, 8),
        (5, 5),
        5,
    )
    assert sent.response_map.shape == (0,)
    volume = sent.volume
    assert volume is not None
    assert (volume.count, volume.back - volume.front) == (6, 5)
    assert [one.volume.index for one in found.values()] == [
        volume.front, volume.front + 2, volume.back - 1,
    ]  # fmt: skip
    assert [one.depth for one in found.values()] == [0.0, 0.5, 1.0]
    assert all(find.crop.shape == (1, 5, 5) for find in sent.top_images)
    first = sent.top_images[0].volume
    assert first is not None
    assert first.index == first.front + 2


def test_the_slices_of_an_attribution_are_those_of_the_whole(volumes: InspectedInputs) -> None:
    model, samples = volumes.model, volumes.samples()
    traced = trace_activation(model, model, model[3], samples[0])
    assert traced is not None
    whole = attribute_filter_response(model, model, traced, 1, samples[0]).guided_backpropagation
    assert whole is not None
    for i, depth in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        sent = encode_crop(whole, depth)
        expected = whole[:, i] / whole.abs().max()
        np.testing.assert_allclose(sent, expected, atol=1e-3)


def test_a_preferred_signal_or_volume_is_searched(run: InspectedInputs) -> None:
    sent = train_until(run, 30, InspectFilter("3", 2, ascent=1, depth=1.0))
    found = sent.preferred
    assert found is not None
    assert sent.preferred_refusal == ""
    if len(run.shape) == 3:
        assert found.pixels.shape == (2, 1, 5)
        assert (found.box[0], found.box[2], found.volume) == (0, 1, None)
    else:
        assert found.pixels.shape == (2, 5, 5)
        assert found.volume is not None
        assert found.volume.index == found.volume.back - 1


def test_inspecting_them_leaves_the_training_bit_identical(run: InspectedInputs) -> None:
    plain = InspectedInputs(len(run.shape) - 2)
    plain.train_batch()
    for _ in range(4):
        run.advance(5)
        run.collector.select(InspectFilter("3", 1, ascent=1))
        for each in (plain, run):
            torch.manual_seed(1)
            each.train_batch()
            each.random = torch.rand(())  # type: ignore[attr-defined]
    plain.recorder.detach()
    expected, actual = plain.model.state_dict(), run.model.state_dict()
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    assert plain.random == run.random  # type: ignore[attr-defined]


def test_a_row_of_numbers_has_no_parts_to_show() -> None:
    run = InspectedRun(nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 3)))
    rows = torch.randn(6, 20)
    run.train_batch(rows)
    run.collector.select(InspectFilter("0", 1, ascent=1))
    [sent] = run.train_batch(rows, reported=rows)
    run.recorder.detach()
    for reason in (sent.top_images_note, sent.attribution_refusal):
        assert "a row of numbers, which has no parts" in reason


def test_a_long_signal_is_sent_shortened_with_its_extremes() -> None:
    signal = torch.zeros(1, 300_000)
    signal[0, 123_456], signal[0, 123_457] = 1.0, -0.5
    sent = encode_inspected_input(signal, None)
    assert sent.shape[:2] == (1, 1)
    assert sent.shape[2] <= 2**16
    assert (sent.max(), sent.min()) == (1.0, -0.5)
    assert encode_signal_response_map(signal, torch.rand(1, 9999)).shape[0] <= 2048
    assert input_height_and_width(signal) == (1, 300_000)


def test_an_input_without_a_response_shows_its_middle_slice() -> None:
    run = InspectedRun(network(3), forward=None)
    values = torch.randn(SHAPES[3])
    run.train_batch(values)
    run.collector.select(InspectFilter("0", 1))
    [sent] = run.train_batch(values)
    run.recorder.detach()
    assert sent.volume == VolumeSlice(2, 6, 0, 6)
    assert sent.image.shape == (2, 9, 8)
    assert "the option forward=..." in sent.attribution_refusal
    assert all(find.crop.shape == (1, 9, 8) for find in sent.top_images)
