from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import PreferredImage, TopImage, VolumeSlice
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_inspection import FIELD, fake_inspection
from viewer.components.filter_inspection import (
    NO_TOP_IMAGES,
    NOT_RECORDED,
    WAITING,
    FilterInspectionPane,
)
from viewer.components.layer_panel import LayerPanel
from viewer.tab.selection import FilterReference
from viewer.tab.tab_state import TabState


@pytest.fixture
def pane(tab: TabState) -> FilterInspectionPane:
    tab.selection = FilterReference("conv2", tab.structure.layers[1].filter_ids[3])  # type: ignore[union-attr]
    return FilterInspectionPane(tab)


def receive_inspection(pane: FilterInspectionPane, **changes: object) -> None:
    follower = pane.tab.follower
    training = follower.training  # type: ignore[attr-defined]
    step = changes.pop("step", training.step)
    pixels = changes.pop("pixels", None)
    sent = fake_inspection(training.run, training.version, step, "conv2", 3, **changes)
    sent = sent if pixels is None else replace(sent, image=pixels)
    follower.inspections.receive(sent, follower.state)  # type: ignore[arg-type]


def test_closed_pane_requests_nothing(pane: FilterInspectionPane) -> None:
    assert not pane.update()
    assert pane.tab.follower.inspections._filters == {}
    assert pane.source.data == {}


def test_ended_run_does_not_wait_for_an_inspection(
    pane: FilterInspectionPane, follower: InProcessFollower
) -> None:
    pane.tab.pane = "inspection"
    pane.update()
    assert pane.source.data == {"status": WAITING, "busy": True}
    follower.kind = "failed"
    assert pane.update()
    assert pane.source.data == {"status": NOT_RECORDED, "busy": False}


def test_pane_shows_top_images_and_attribution(pane: FilterInspectionPane) -> None:
    pane.tab.pane = "inspection"
    assert pane.update()
    assert pane.source.data["status"] == WAITING
    assert not pane.update()
    receive_inspection(pane, step=20)
    assert pane.update()
    assert not pane.update()
    data = pane.source.data
    assert len(data["top_images"]) == 9
    assert data["top_images"][0]["pixels"].shape == (1, FIELD, FIELD, 3)
    assert data["top_images"][0]["age"] == "this batch"
    assert data["top_images"][1]["age"] == "7 batches ago"
    assert [image["response"] for image in data["top_images"][:2]] == ["5.00", "4.60"]
    assert data["crop_note"] == f"cropped to the {FIELD}×{FIELD} receptive field"
    assert data["crop"].shape == (1, FIELD, FIELD, 3)
    assert data["guided"].shape == (1, FIELD, FIELD, 3)
    assert (data["title"], data["response"]) == ("first image of the batch", "3.25")
    preferred = data["preferred"]
    assert preferred["pixels"].shape == (1, FIELD, FIELD, 3)
    assert (preferred["response"], preferred["share"]) == ("8.50", 0.4)
    receive_inspection(pane, step=21, preferred=None, preferred_refusal="no image")
    assert pane.update()
    assert pane.source.data["preferred"] is None
    assert pane.source.data["preferred_note"] == "no image"


def test_pane_updates_with_selection_and_image(pane: FilterInspectionPane) -> None:
    tab = pane.tab
    tab.pane = "inspection"
    pane.update()
    receive_inspection(pane)
    pane.update()
    tab.follower.layer_details.request_newest("conv2", "tsne")
    tab.follower.layer_details.show_image_if_known("conv2", 4)
    assert pane.update()
    assert pane.source.data["busy"]  # the previous image is shown
    receive_inspection(pane, image=4)
    pane.update()
    assert not pane.source.data["busy"]
    assert pane.source.data["title"] == "validation image 4"
    tab.select(1, 5)
    assert pane.update()
    assert "top_images" not in pane.source.data


def test_missing_attribution_shows_its_reason_and_the_top_images(
    pane: FilterInspectionPane,
) -> None:
    pane.tab.pane = "inspection"
    pane.update()
    nothing = np.zeros(0, np.float16)
    receive_inspection(
        pane,
        attribution_refusal="no captum",
        deconvolution=nothing,
        guided_backpropagation=nothing,
        receptive_field=(0, 0),
    )
    pane.update()
    data = pane.source.data
    assert data["refused"] == "no captum"
    assert len(data["deconvolution"]) == len(data["guided"]) == 0
    assert data["crop_note"] == "not cropped"
    assert len(data["top_images"]) == 9


def test_missing_images_and_response(pane: FilterInspectionPane) -> None:
    pane.tab.pane = "inspection"
    pane.update()
    nothing = np.zeros(0, np.float16)
    receive_inspection(
        pane,
        top_images=[],
        image=None,
        response=None,
        attribution_refusal="no images",
        box=(0, 0, 0, 0),
    )
    pane.update()
    assert pane.source.data["no_top_images"] == NO_TOP_IMAGES
    assert len(pane.source.data["crop"]) == 0
    receive_inspection(
        pane, step=9, response=float("nan"), deconvolution=nothing, guided_backpropagation=nothing
    )
    pane.update()
    assert pane.source.data["response"] == "–"


def test_a_signal_is_drawn_as_curves_on_its_attribution(pane: FilterInspectionPane) -> None:
    pane.tab.pane = "inspection"
    pane.update()
    signal = np.sin(np.arange(200, dtype=np.float16) / 7)[None, None]
    crop = np.full((1, 1, 20), 128, np.uint8)
    receive_inspection(
        pane,
        pixels=signal,
        image_size=(1, 400),  # the original is longer
        box=(0, 100, 1, 120),
        receptive_field=(1, 20),
        deconvolution=signal[..., :20],
        guided_backpropagation=signal[..., :20],
        response_map=np.linspace(0, 1, 50, dtype=np.float16),
        top_images=[TopImage(crop, (0, 7, 1, 27), (1, 400), 2.0, 0)],
        preferred=PreferredImage(signal[..., :20], (0, 190, 1, 210), 3.0, 150, 150),
    )
    pane.update()
    data = pane.source.data
    assert data["image"].shape == (1, 200)
    assert data["crop"].shape == (1, 10)
    np.testing.assert_array_equal(data["crop"], data["image"][:, 50:60])
    assert data["deconvolution"].shape == data["guided"].shape == (1, 1, 20)
    assert data["response_map"].shape == (1, 50)
    assert data["size"] == [1, 400]
    top = data["top_images"][0]
    assert (top["pixels"] == crop[:, 0]).all()
    assert top["place"] == "values 7–26 of 400"
    assert data["preferred"]["pixels"].shape == (1, 20)
    assert data["crop_note"] == "cropped to the receptive field of 20 values"


def test_a_slice_of_a_volume_says_which_it_is_and_the_slider_selects_it(
    pane: FilterInspectionPane,
) -> None:
    tab = pane.tab
    tab.pane = "inspection"
    pane.update()
    volume = VolumeSlice(5, 16, 3, 8)
    receive_inspection(pane, volume=volume, receptive_field_depth=5)
    pane.update()
    data = pane.source.data
    assert data["title"] == "first image of the batch, slice 5 of 16"
    assert data["crop_note"] == f"cropped to the 5×{FIELD}×{FIELD} receptive field"
    tab.follower.layer_details.select_depth("conv2", 0.75)
    panel = LayerPanel(tab)
    panel.update()
    assert panel.root.data["depth"] == 0.75
    assert pane.update()
    (record,) = tab.follower.inspections._filters.values()
    assert (record.depth, record.last_requested) == (0.75, 0.0)
