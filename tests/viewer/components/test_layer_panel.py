from __future__ import annotations

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
from viewer.tab.tab_state import TabState


def test_findings_list_their_filters(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    panel, ids = LayerPanel(tab), tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    # Near duplicates are unknown before the layout is computed.
    assert panel.content()["findings"] is None
    detail = world.detail()
    features = np.random.default_rng(0).normal(size=detail.coefficients.features.shape)
    features[[4, 9, 11]], features[7] = features[2] * 0.5, features[3]
    features[5], features[6] = 0, np.nan
    world.deliver(replace(detail, coefficients=FilterView(features, detail.coefficients.images)))
    world.tick()

    found = {one["kind"]: one for one in panel.content()["findings"]}
    assert found["near_duplicates"]["text"] == "2 groups of near duplicates (6 filters)"
    expected = [[ids[2], ids[4], ids[9], ids[11]], [ids[3], ids[7]]]
    assert found["near_duplicates"]["groups"] == expected
    assert found["dead"]["groups"] == [[ids[5]]]
    assert found["nonfinite"]["groups"] == [[ids[6]]]
    assert "single_color" not in found

    follower.request(RemoveFilters("conv2", [3, 4]), "", 0)  # one of each group
    deliver_replies(tab, follower)
    (duplicates,) = (one for one in panel.content()["findings"] if one["kind"] == "near_duplicates")
    assert duplicates["groups"] == [[ids[2], ids[9], ids[11]]]
    assert duplicates["text"] == "3 near duplicates"


def test_single_color_filters_are_found(world: World, tab: TabState) -> None:
    send_command(tab, "select", layer=0, first=0, last=0)
    world.layers.mark_visible("conv1", "tsne")
    detail = world.detail("conv1")
    images = detail.coefficients.images.copy()
    images[:] = np.random.default_rng(0).normal(size=images.shape)
    images[[1, 6]] = (0.9, -0.2, 0.4)
    world.deliver(replace(detail, coefficients=FilterView(detail.coefficients.features, images)))

    (finding,) = (
        one for one in LayerPanel(tab).content()["findings"] if one["kind"] == "single_color"
    )
    ids = tab.structure.layers[0].filter_ids  # type: ignore[union-attr]
    assert finding["groups"] == [[ids[1], ids[6]]]
    assert finding["text"] == "2 single-color"


def test_filters_inactive_for_long_are_dead(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    follower.training.dead.add(ids[8])
    follower.training.deactivate_filter(ids[8])
    follower.train(40)

    (dead,) = (one for one in LayerPanel(tab).content()["findings"] if one["kind"] == "dead")
    assert dead["groups"] == [[ids[8]]]


def test_slices_are_selectable_only_with_many_input_channels(world: World, tab: TabState) -> None:
    panel = LayerPanel(tab)
    assert panel.content()["slices"] == "strongest"
    send_command(tab, "set_kernel_slices", option="mean")
    assert panel.content()["slices"] == "mean"
    send_command(tab, "set_kernel_slices", option="loudest")  # unknown option
    assert panel.content()["slices"] == "mean"

    send_command(tab, "select", layer=0, first=0, last=0)  # RGB input
    world.layers.mark_visible("conv1", "tsne")
    assert panel.content()["slices"] == ""


def test_changes_of_several_selected_filters(tab: TabState, follower: InProcessFollower) -> None:
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    send_command(tab, "select", layer=1, first=3, last=3)
    send_command(tab, "select_filters", ids=[ids[5], ids[7], ids[5], 10**6])

    assert tab.selected_position() == (1, 5)
    assert LayerPanel(tab).content()["selected"] == [ids[5], ids[7]]

    for command in ("stage_freeze", "stage_reinitialize", "stage_merge", "stage_remove"):
        send_command(tab, command)
    deliver_replies(tab, follower)
    edits = [change.to_edit(tab.structure) for change in tab.staging.in_send_order()]  # type: ignore[arg-type]
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
    send_command(tab, "stage_set_to_mean", ids=[ids[3], ids[8], ids[1]], weights=[0.75, 0.25])
    deliver_replies(tab, follower)

    change = tab.staging.changes[0]
    assert change.to_edit(tab.structure) == SetFilter("conv2", 3, [8, 1], [0.75, 0.25])  # type: ignore[arg-type]
    assert change.title(tab.structure) == "conv2 · filter 3 to the mean of 8, 1"  # type: ignore[arg-type]

    send_command(
        tab, "stage_set_to_mean", ids=[ids[3], ids[9]], weights=[1.0]
    )  # replaces the first
    assert len(tab.staging.changes) == 1

    follower.request(RemoveFilters("conv2", [9]), "", 0)  # the neighbor is removed
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
    send_command(tab, "stage_set_to_mean", ids=ids, weights=weights)

    assert tab.staging.changes == []


def test_multiple_selection_survives_edits(tab: TabState, follower: InProcessFollower) -> None:
    ids = list(tab.structure.layers[1].filter_ids)  # type: ignore[union-attr]
    send_command(tab, "select", layer=1, first=3, last=3)
    send_command(tab, "select_filters", ids=[ids[5], ids[7], ids[9]])
    follower.request(RemoveFilters("conv2", [0, 7]), "", 0)
    deliver_replies(tab, follower)

    assert tab.selected_ids() == [ids[5], ids[9]]
    assert tab.selected_position() == (1, 4)
