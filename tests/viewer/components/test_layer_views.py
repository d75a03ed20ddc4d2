from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.messages import FilterView
from revacnn_lightning.protocol.requests import (
    Freeze,
    MergeFilters,
    Reinitialize,
    RemoveFilters,
    SetFilter,
    Unfreeze,
)
from tests.viewer.conftest import InProcessFollower
from tests.viewer.runs.test_layer_details import World
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.layer_panel import LayerPanel
from viewer.components.layer_views import (
    NO_DATA,
    NOT_RECORDED,
    WAITING,
    InputImage,
    LayerView,
    layer_views,
)
from viewer.runs.layer_details import VIEWS
from viewer.tab.tab_state import TabState


@pytest.fixture
def world(follower: InProcessFollower, tab: TabState, monkeypatch: pytest.MonkeyPatch) -> World:
    """``conv2`` is selected, and the training sends its details."""
    world = World(follower, monkeypatch)
    follower.layer_details = world.layers
    send_command(tab, "select", layer=1, first=3, last=3)
    world.layers.mark_visible("conv2", "tsne")
    world.send(world.detail())
    return world


def sums(view: LayerView) -> np.ndarray:
    return np.asarray(view.root.data["values"][:, 1])


def arrays(view: LayerView) -> dict[str, Any]:
    names = ("ids", "indices", "positions", "degenerate", "amplitude", "values")
    return {name: view.root.data[name] for name in names} | {"atlas": view.root.atlas}


@pytest.mark.parametrize("name", VIEWS)
def test_thumbnails_stand_in_a_grid_before_the_layout(
    world: World, tab: TabState, name: str
) -> None:
    view = LayerView(tab, name)

    assert view.update() is True
    assert view.update() is False

    shown = arrays(view)
    assert {len(part) for part in shown.values()} == {16}
    assert shown["atlas"].dtype == np.uint8
    assert len(np.unique(shown["positions"], axis=0)) == 16
    assert view.root.data["status"] == "Computing the layout…"
    assert list(view.root.data["indices"]) == list(range(16))


def test_layout_is_applied_when_it_is_computed(world: World, tab: TabState) -> None:
    view = LayerView(tab, "coefficients")
    view.update()
    grid, pictures = view.root.data["positions"], view.root.atlas
    world.tick()

    assert view.update() is True

    layout = world.layers.projections.get("conv2", "coefficients", "tsne")
    assert layout is not None
    np.testing.assert_array_equal(view.root.data["positions"], layout.positions)
    assert not np.array_equal(view.root.data["positions"], grid)
    assert view.root.atlas is pictures  # sent once per detail
    assert view.root.data["status"] == ""


def test_removed_filter_disappears_before_new_details_arrive(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    view = LayerView(tab, "coefficients")
    world.tick()
    view.update()
    before = {
        int(id_): place
        for id_, place in zip(view.root.data["ids"], view.root.data["positions"], strict=True)
    }
    follower.request(RemoveFilters("conv2", [2, 5]), "", 0)
    deliver_replies(tab, follower)
    assert follower.state is not None
    follower.train()

    view.update()

    assert len(view.root.data["ids"]) == 14
    for id_, place in zip(view.root.data["ids"], view.root.data["positions"], strict=True):
        np.testing.assert_array_equal(place, before[int(id_)])
    assert len(view.root.atlas) == 14
    assert list(view.root.data["indices"]) == list(range(14))


def test_new_filter_has_no_position_before_the_next_layout(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    world.tick()
    send_command(tab, "stage_add")
    send_command(tab, "apply")
    deliver_replies(tab, follower)
    world.send(world.detail())
    view = LayerView(tab, "coefficients")

    view.update()
    assert np.isnan(view.root.data["positions"][16]).all()
    assert not np.isnan(view.root.data["positions"][:16]).any()

    world.layers.mark_visible("conv2", "tsne")
    world.tick()
    view.update()
    assert not np.isnan(view.root.data["positions"]).any()


def test_degenerate_filters_are_set_apart(world: World, tab: TabState) -> None:
    detail = world.detail()
    features = detail.coefficients.features.copy()
    images = detail.coefficients.images.copy()
    features[4], images[4] = 0, 0
    features[9], images[9] = np.nan, np.nan
    world.send(replace(detail, coefficients=FilterView(features, images)))
    world.tick()
    view = LayerView(tab, "coefficients")

    view.update()

    np.testing.assert_array_equal(view.root.data["degenerate"][[4, 9]], [1, 2])
    assert view.root.data["degenerate"].sum() == 3
    assert (view.root.data["positions"][[4, 9], 1] < -1).all()


def test_view_without_data_shows_its_status(world: World, tab: TabState) -> None:
    nothing = FilterView(np.zeros(0, np.float16), np.zeros(0, np.float16))
    world.send(replace(world.detail(), activation_gradients=nothing))
    world.tick()
    view = LayerView(tab, "activation_gradients")

    view.update()

    assert view.root.data["status"] == NO_DATA
    assert len(view.root.atlas) == 0


def test_ended_run_does_not_wait_for_a_layer(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "select", layer=0, first=0, last=0)
    view = LayerView(tab, "coefficients")
    view.update()
    assert (view.root.data["status"], view.root.data["busy"]) == (WAITING, True)
    follower.kind = "finished"
    view.update()
    assert (view.root.data["status"], view.root.data["busy"]) == (NOT_RECORDED, False)


def test_recomputing_status_is_shown_until_done(world: World, tab: TabState) -> None:
    world.tick()
    view = LayerView(tab, "coefficients")
    view.update()
    assert (view.root.data["status"], view.root.data["busy"]) == ("", False)
    send_command(tab, "recompute_layout")
    assert view.update() is True
    assert (view.root.data["status"], view.root.data["busy"]) == ("Recomputing the layout…", True)
    world.tick()
    assert view.update() is True
    assert (view.root.data["status"], view.root.data["busy"]) == ("", False)


def test_failed_layout_shows_its_reason(world: World, tab: TabState) -> None:
    world.worker.fail = True
    world.tick()
    view = LayerView(tab, "coefficients")

    view.update()

    assert view.root.data["status"] == "too long; retrying soon"
    assert view.root.data["busy"] is False
    assert len(view.root.atlas) == 16  # the pictures stand in a grid meanwhile


def test_views_are_cleared_when_their_layer_is_removed(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    views = layer_views(tab)
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


def test_findings_list_their_filters(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    panel, ids = LayerPanel(tab), tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    # Nothing is laid out: it is not true yet that none is like another.
    assert panel.content()["findings"] is None
    detail = world.detail()
    features = np.random.default_rng(0).normal(size=detail.coefficients.features.shape)
    features[[4, 9, 11]], features[7] = features[2] * 0.5, features[3]
    features[5], features[6] = 0, np.nan
    world.send(replace(detail, coefficients=FilterView(features, detail.coefficients.images)))
    world.tick()

    found = {one["kind"]: one for one in panel.content()["findings"]}
    assert found["near_duplicates"]["text"] == "2 groups of near duplicates (6 filters)"
    expected = [[ids[2], ids[4], ids[9], ids[11]], [ids[3], ids[7]]]
    assert found["near_duplicates"]["groups"] == expected
    assert found["dead"]["groups"] == [[ids[5]]]
    assert found["nonfinite"]["groups"] == [[ids[6]]]
    assert "single_color" not in found

    follower.request(RemoveFilters("conv2", [3, 4]), "", 0)  # of each group one
    deliver_replies(tab, follower)
    (alike,) = (one for one in panel.content()["findings"] if one["kind"] == "near_duplicates")
    assert alike["groups"] == [[ids[2], ids[9], ids[11]]]
    assert alike["text"] == "3 near duplicates"


def test_single_color_filters_are_found(world: World, tab: TabState) -> None:
    send_command(tab, "select", layer=0, first=0, last=0)
    world.layers.mark_visible("conv1", "tsne")
    detail = world.detail("conv1")
    images = detail.coefficients.images.copy()
    images[:] = np.random.default_rng(0).normal(size=images.shape)
    images[[1, 6]] = (0.9, -0.2, 0.4)
    world.send(replace(detail, coefficients=FilterView(detail.coefficients.features, images)))

    (colour,) = (
        one for one in LayerPanel(tab).content()["findings"] if one["kind"] == "single_color"
    )
    ids = tab.structure.layers[0].filter_ids  # type: ignore[union-attr]
    assert colour["groups"] == [[ids[1], ids[6]]]
    assert colour["text"] == "2 single-color"


def test_filters_inactive_for_long_are_dead(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    follower.training.dead.add(ids[8])
    follower.training.silence(ids[8])
    follower.train(40)

    (dead,) = (one for one in LayerPanel(tab).content()["findings"] if one["kind"] == "dead")
    assert dead["groups"] == [[ids[8]]]


def test_slices_are_selectable_only_with_many_input_channels(world: World, tab: TabState) -> None:
    panel = LayerPanel(tab)
    assert panel.content()["slices"] == "strongest"
    send_command(tab, "set_slices", option="mean")
    assert panel.content()["slices"] == "mean"
    send_command(tab, "set_slices", option="loudest")  # nonsense
    assert panel.content()["slices"] == "mean"

    send_command(tab, "select", layer=0, first=0, last=0)  # red, green and blue
    world.layers.mark_visible("conv1", "tsne")
    assert panel.content()["slices"] == ""


@pytest.mark.parametrize("pane", ["maps", "statistics"])
def test_hidden_views_are_neither_sent_nor_requested(
    world: World, tab: TabState, pane: str
) -> None:
    send_command(tab, "set_pane", option=pane)
    world.now += 100
    sent = [view.view for view in layer_views(tab) if view.update()]

    assert sent == (["activations"] if pane == "maps" else [])
    if pane == "statistics":
        world.asked.clear()
        world.tick()
        assert world.asked == []


def test_input_image_is_shown_in_the_maps_pane(world: World, tab: TabState) -> None:
    image = InputImage(tab)
    assert image.update() is False
    send_command(tab, "set_pane", option="maps")

    assert image.update() is True
    assert image.update() is False
    assert image.root.atlas.shape == (1, 64, 64, 3)
    assert image.root.data["title"] == "Input · first image of the batch"

    send_command(tab, "step_image", dx=1)
    world.tick(0.1)
    assert world.asked[-1].image_index == 0
    send_command(tab, "step_image", dx=1)
    send_command(tab, "show_batch_image")
    world.tick(0.1)
    assert world.asked[-1].image_index is None


def test_changes_of_several_selected_filters(tab: TabState, follower: InProcessFollower) -> None:
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    send_command(tab, "select", layer=1, first=3, last=3)
    send_command(tab, "select_filters", ids=[ids[5], ids[7], ids[5], 10**6])

    assert tab.selected_position() == (1, 5)
    assert LayerPanel(tab).content()["selected"] == [ids[5], ids[7]]

    for command in ("stage_freeze", "stage_reinitialize", "stage_merge", "stage_remove"):
        send_command(tab, command)
    deliver_replies(tab, follower)
    edits = [row.to_edit(tab.structure) for row in tab.staging.in_send_order()]  # type: ignore[arg-type]
    assert edits == [
        Reinitialize("conv2", [5, 7]),
        Freeze("conv2", [5, 7]),
        MergeFilters("conv2", [5, 7]),
        RemoveFilters("conv2", [5, 7]),
    ]
    for command in ("stage_freeze", "stage_reinitialize", "stage_merge", "stage_remove"):
        send_command(tab, command)
    assert tab.staging.changes == []


def test_single_filter_cannot_be_merged(tab: TabState) -> None:
    assert LayerPanel(tab).content()["disabled"]["merge"]
    send_command(tab, "stage_merge")
    assert tab.staging.changes == []


def test_freeze_button_unfreezes_frozen_filters(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "select", layer=1, first=3, last=3)
    send_command(tab, "stage_freeze")
    send_command(tab, "apply")
    deliver_replies(tab, follower)
    assert LayerPanel(tab).content()["freeze_label"] == "Unfreeze"

    send_command(tab, "stage_freeze")
    assert tab.staging.changes[0].to_edit(tab.structure) == Unfreeze("conv2", [3])  # type: ignore[arg-type]


def test_stage_set_stages_a_weighted_mean(tab: TabState, follower: InProcessFollower) -> None:
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    send_command(tab, "select", layer=1, first=3, last=3)
    send_command(tab, "stage_set", ids=[ids[3], ids[8], ids[1]], weights=[0.75, 0.25])
    deliver_replies(tab, follower)

    row = tab.staging.changes[0]
    assert row.to_edit(tab.structure) == SetFilter("conv2", 3, [8, 1], [0.75, 0.25])  # type: ignore[arg-type]
    assert row.title(tab.structure) == "conv2 · filter 3 to the mean of 8, 1"  # type: ignore[arg-type]

    send_command(tab, "stage_set", ids=[ids[3], ids[9]], weights=[1.0])  # dragged on
    assert len(tab.staging.changes) == 1

    follower.request(RemoveFilters("conv2", [9]), "", 0)  # the neighbour goes
    deliver_replies(tab, follower)
    assert tab.staging.changes == []


@pytest.mark.parametrize(
    ("ids", "weights"),
    [([0], []), ([8, 9], [0.0]), ([8, 9], [-1.0]), ([8, 9], [float("nan")]), ([8, 10**6], [1.0]),
     ([8, 9, 10], [1.0])],
)  # fmt: skip
def test_stage_set_ignores_invalid_arguments(
    tab: TabState, ids: list[int], weights: list[float]
) -> None:
    send_command(tab, "select", layer=1, first=3, last=3)
    send_command(tab, "stage_set", ids=ids, weights=weights)

    assert tab.staging.changes == []


def test_multiple_selection_survives_edits(tab: TabState, follower: InProcessFollower) -> None:
    ids = list(tab.structure.layers[1].filter_ids)  # type: ignore[union-attr]
    send_command(tab, "select", layer=1, first=3, last=3)
    send_command(tab, "select_filters", ids=[ids[5], ids[7], ids[9]])
    follower.request(RemoveFilters("conv2", [0, 7]), "", 0)
    deliver_replies(tab, follower)

    assert tab.selected_ids() == [ids[5], ids[9]]
    assert tab.selected_position() == (1, 4)


def test_map_values_are_of_the_batch_or_the_chosen_image(world: World, tab: TabState) -> None:
    view = LayerView(tab, "activations")
    assert tab.state is not None
    for image in (None, 1):
        detail = world.detail(image=image)
        world.send(detail)
        view.update()
        of_layer = tab.state.layer_values("activation", 1)
        of_image = detail.activations.images.sum(axis=(1, 2))
        assert np.allclose(sums(view), of_layer if image is None else of_image, rtol=1e-3)
