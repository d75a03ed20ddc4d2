from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages
from revacnn_lightning.protocol.messages import Refused
from revacnn_lightning.protocol.requests import (
    RemoveFilters,
)
from tests.viewer.conftest import InProcessFollower
from tests.viewer.runs.test_layer_details import World
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.layer_panel import LayerPanel
from viewer.components.layer_views import (
    NO_DATA,
    NO_GRADIENTS,
    NOT_RECORDED,
    WAITING,
    FilterEmbeddingView,
    InputImage,
    make_embedding_views,
)
from viewer.runs.layer_details import VIEWS
from viewer.tab.tab_state import TabState


def activations(view: FilterEmbeddingView) -> np.ndarray:
    return np.asarray(view.root.data["values"][:, 1])


def arrays(view: FilterEmbeddingView) -> dict[str, Any]:
    names = ("ids", "indices", "positions", "degenerate", "amplitude", "values")
    return {name: view.root.data[name] for name in names} | {"atlas": view.root.atlas}


@pytest.mark.parametrize("name", VIEWS)
def test_thumbnails_stand_in_a_grid_before_the_layout(
    world: World, tab: TabState, name: str
) -> None:
    view = FilterEmbeddingView(tab, name)

    assert view.update() is True
    assert view.update() is False

    shown = arrays(view)
    assert {len(array) for array in shown.values()} == {16}
    assert shown["atlas"].dtype == np.uint8
    assert len(np.unique(shown["positions"], axis=0)) == 16
    assert view.root.data["status"] == "Computing the layout…"
    assert list(view.root.data["indices"]) == list(range(16))


def test_layout_is_applied_when_it_is_computed(world: World, tab: TabState) -> None:
    view = FilterEmbeddingView(tab, "coefficients")
    view.update()
    grid, thumbnails = view.root.data["positions"], view.root.atlas
    world.tick()

    assert view.update() is True

    layout = world.layers.projections.get("conv2", "coefficients", "tsne")
    assert layout is not None
    np.testing.assert_array_equal(view.root.data["positions"], layout.positions)
    assert not np.array_equal(view.root.data["positions"], grid)
    assert view.root.atlas is thumbnails  # drawn once per detail
    assert view.root.data["status"] == ""


def test_removed_filter_disappears_before_new_details_arrive(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    view = FilterEmbeddingView(tab, "coefficients")
    world.tick()
    view.update()
    before = {
        int(id_): position
        for id_, position in zip(view.root.data["ids"], view.root.data["positions"], strict=True)
    }
    follower.request(RemoveFilters("conv2", [2, 5]), "", 0)
    deliver_replies(tab, follower)
    assert follower.state is not None
    follower.train()

    view.update()

    assert len(view.root.data["ids"]) == 14
    for id_, position in zip(view.root.data["ids"], view.root.data["positions"], strict=True):
        np.testing.assert_array_equal(position, before[int(id_)])
    assert len(view.root.atlas) == 14
    assert list(view.root.data["indices"]) == list(range(14))


def test_new_filter_has_no_position_before_the_next_layout(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    world.tick()
    send_command(tab, "stage_add")
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    world.deliver(world.detail())
    view = FilterEmbeddingView(tab, "coefficients")

    view.update()
    assert np.isnan(view.root.data["positions"][16]).all()
    assert not np.isnan(view.root.data["positions"][:16]).any()

    world.layers.request_newest("conv2", "tsne")
    world.tick()
    view.update()
    assert not np.isnan(view.root.data["positions"]).any()


def test_degenerate_filters_are_set_apart(world: World, tab: TabState) -> None:
    detail = world.detail()
    features = detail.coefficients.features.copy()
    images = detail.coefficients.images.copy()
    features[4], images[4] = 0, 0
    features[9], images[9] = np.nan, np.nan
    world.deliver(replace(detail, coefficients=FilterFeaturesAndImages(features, images)))
    world.tick()
    view = FilterEmbeddingView(tab, "coefficients")

    view.update()

    np.testing.assert_array_equal(view.root.data["degenerate"][[4, 9]], [1, 2])
    assert view.root.data["degenerate"].sum() == 3
    assert (view.root.data["positions"][[4, 9], 1] < -1).all()


def test_view_without_data_shows_its_status(world: World, tab: TabState) -> None:
    nothing = FilterFeaturesAndImages(np.zeros(0, np.float16), np.zeros(0, np.float16))
    world.deliver(replace(world.detail(), activation_gradients=nothing))
    world.tick()
    view = FilterEmbeddingView(tab, "activation_gradients")

    view.update()

    assert view.root.data["status"] == NO_DATA
    assert len(view.root.atlas) == 0


def test_gradients_of_a_chosen_image_were_waited_for(world: World, tab: TabState) -> None:
    """None are computed of it: the view said that there are no data yet."""
    nothing = FilterFeaturesAndImages(np.zeros(0, np.float16), np.zeros(0, np.float16))
    detail = replace(world.detail(), activation_gradients=nothing, image_index=-7)
    world.deliver(replace(detail, activations=nothing))
    views = [FilterEmbeddingView(tab, name) for name in ("activation_gradients", "activations")]
    for view in views:
        view.update()
    assert [view.root.data["status"] for view in views] == [NO_GRADIENTS, NO_DATA]


def test_ended_run_does_not_wait_for_a_layer(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=0, first=0, last=0)
    view = FilterEmbeddingView(tab, "coefficients")
    view.update()
    assert (view.root.data["status"], view.root.data["busy"]) == (WAITING, True)
    follower.kind = "finished"
    view.update()
    assert (view.root.data["status"], view.root.data["busy"]) == (NOT_RECORDED, False)


def test_recomputing_status_is_shown_until_done(world: World, tab: TabState) -> None:
    world.tick()
    view = FilterEmbeddingView(tab, "coefficients")
    view.update()
    assert (view.root.data["status"], view.root.data["busy"]) == ("", False)
    send_command(tab, "recompute_projections")
    assert view.update() is True
    assert (view.root.data["status"], view.root.data["busy"]) == ("Recomputing the layout…", True)
    world.tick()
    assert view.update() is True
    assert (view.root.data["status"], view.root.data["busy"]) == ("", False)


def test_failed_layout_shows_its_reason(world: World, tab: TabState) -> None:
    world.worker.fail = True
    world.tick()
    view = FilterEmbeddingView(tab, "coefficients")

    view.update()

    assert view.root.data["status"] == "too long; retrying soon"
    assert view.root.data["busy"] is False
    assert len(view.root.atlas) == 16  # in a grid


def test_views_are_cleared_when_their_layer_is_removed(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    views = make_embedding_views(tab)
    world.tick()
    for view in views:
        assert view.update() is True
    structure = tab.structure
    assert structure is not None
    assert follower.state is not None
    layers = [layer for layer in structure.layers if layer.name != "conv2"]
    follower.state.receive(replace(structure, layers=layers, version=structure.version + 1))
    tab.update()
    world.tick()
    for view in views:
        view.update()

    assert tab.selection is not None
    assert tab.selection.layer == "conv1"
    assert {view.root.data["layer"] for view in views} == {""}
    assert {len(view.root.atlas) for view in views} == {0}
    assert LayerPanel(tab).content()["findings"] is None


@pytest.mark.parametrize("pane", ["maps", "statistics"])
def test_hidden_views_are_neither_sent_nor_requested(
    world: World, tab: TabState, pane: str
) -> None:
    send_command(tab, "set_pane", option=pane)
    world.now += 100
    sent = [view.view for view in make_embedding_views(tab) if view.update()]

    assert sent == (["activations"] if pane == "maps" else [])
    if pane == "statistics":
        world.sent.clear()
        world.tick()
        assert world.sent == []


def test_input_image_is_shown_in_the_maps_pane(world: World, tab: TabState) -> None:
    image = InputImage(tab)
    assert image.update() is False
    send_command(tab, "set_pane", option="maps")

    assert image.update() is True
    assert image.update() is False
    assert image.root.atlas.shape == (1, 64, 64, 3)
    assert image.root.data["title"] == "Input · first image of the batch"

    send_command(tab, "step_validation_image", dx=1)
    world.tick(0.1)
    assert world.sent[-1].image_index == 0
    send_command(tab, "step_validation_image", dx=1)
    send_command(tab, "show_batch_image")
    world.tick(0.1)
    assert world.sent[-1].image_index is None


def test_a_training_without_validation_images_loaded_the_next_one_forever(
    world: World, tab: TabState
) -> None:
    """The layer was requested with the refused image again and again, and not updated anymore."""
    image = InputImage(tab)
    send_command(tab, "set_pane", option="maps")
    image.update()
    send_command(tab, "step_validation_image", dx=1)
    world.tick(0.1)
    assert world.sent[-1].image_index == 0
    world.deliver(Refused(f"w{len(world.sent)}", "this training has no validation images", 0))
    assert image.update() is True
    assert image.root.data["note"] == "this training has no validation images"
    assert image.root.data["waiting"] is False
    world.layers.request_newest("conv2", "tsne")
    world.tick(0.1)
    assert world.sent[-1].image_index is None
    send_command(tab, "show_batch_image")
    world.deliver(world.detail())
    image.update()
    assert image.root.data["waiting"] is False


def test_a_batch_without_images_showed_the_image_before(world: World, tab: TabState) -> None:
    image = InputImage(tab)
    send_command(tab, "set_pane", option="maps")
    world.deliver(replace(world.detail(), image=np.zeros(0, np.float16)))
    assert image.update() is True
    assert len(image.root.atlas) == 0
    assert "This batch holds no image" in image.root.data["note"]


def test_map_values_are_of_the_batch_or_the_chosen_image(world: World, tab: TabState) -> None:
    view = FilterEmbeddingView(tab, "activations")
    assert tab.state is not None
    for image in (None, 1):
        detail = world.detail(image=image)
        world.deliver(detail)
        view.update()
        of_batch = tab.state.layer_values("activation", 1)
        of_image = detail.activations.images.sum(axis=(1, 2))
        assert np.allclose(activations(view), of_batch if image is None else of_image, rtol=1e-3)
