from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages
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
from viewer.components.network import NetworkView
from viewer.layout import NodeState
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
    world.deliver(
        replace(detail, coefficients=FilterFeaturesAndImages(features, detail.coefficients.images))
    )
    world.tick()

    found = {one["kind"]: one for one in panel.content()["findings"]}
    assert found["near_duplicates"]["text"] == "2 groups of near duplicates (6 filters)"
    expected = [[ids[2], ids[4], ids[9], ids[11]], [ids[3], ids[7]]]
    assert found["near_duplicates"]["groups"] == expected
    assert found["zero"]["groups"] == [[ids[5]]]
    assert "dead" not in found  # a filter with a bias may be active without coefficients
    assert found["nonfinite"]["groups"] == [[ids[6]]]
    assert "single_color" not in found

    follower.request(RemoveFilters("conv2", [3, 4]), "", 0)  # one of each group
    deliver_replies(tab, follower)
    (duplicates,) = (one for one in panel.content()["findings"] if one["kind"] == "near_duplicates")
    assert duplicates["groups"] == [[ids[2], ids[9], ids[11]]]
    assert duplicates["text"] == "3 near duplicates"


def test_single_color_filters_are_found(world: World, tab: TabState) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=0, first=0, last=0)
    world.layers.request_newest("conv1", "tsne")
    detail = world.detail("conv1")
    images = detail.coefficients.images.copy()
    images[:] = np.random.default_rng(0).normal(size=images.shape)
    images[[1, 6]] = (0.9, -0.2, 0.4)
    world.deliver(
        replace(detail, coefficients=FilterFeaturesAndImages(detail.coefficients.features, images))
    )

    (finding,) = (
        one for one in LayerPanel(tab).content()["findings"] if one["kind"] == "single_color"
    )
    ids = tab.structure.layers[0].filter_ids  # type: ignore[union-attr]
    assert finding["groups"] == [[ids[1], ids[6]]]
    assert finding["text"] == "2 single-color"


def test_nodes_findings_list_and_chart_called_different_filters_dead(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    """A filter without coefficients and one without activation in one batch were called dead."""
    state, panel, network = follower.state, LayerPanel(tab), NetworkView(tab)
    assert state is not None
    layer = tab.structure.layers[1]  # type: ignore[union-attr]
    start, ids = int(state.offsets[1]), layer.filter_ids
    detail = world.detail()
    features = detail.coefficients.features.copy()
    features[5] = 0
    world.deliver(
        replace(detail, coefficients=FilterFeaturesAndImages(features, detail.coefficients.images))
    )
    world.tick()
    follower.training.deactivate_filter(ids[8])
    follower.train(DEAD_BATCHES - 1)

    def dead_filters() -> tuple[list[int], list[int], list[int], float]:
        network.update()
        panel.update()
        nodes = np.flatnonzero(network.numbers.data["state"] == NodeState.DEAD)
        found = [one["groups"] for one in panel.source.data["findings"] if one["kind"] == "dead"]
        share = float(state.histories.layers["dead"].rows[-1, 1])
        in_layer = [int(node) - start for node in nodes if start <= node < start + len(ids)]
        return in_layer, panel.source.data["dead"], found[0][0] if found else [], share

    assert dead_filters() == ([], [], [], 0.0)
    assert panel.source.data["knows_dead_filters"]
    follower.training.deactivate_filter(ids[9])
    follower.train()
    assert dead_filters() == ([8], [ids[8]], [ids[8]], 1 / len(ids))
    follower.train(DEAD_BATCHES - 1)
    assert dead_filters() == ([8, 9], [ids[8], ids[9]], [ids[8], ids[9]], 2 / len(ids))


def test_a_past_batch_showed_the_filters_that_are_dead_now(
    tab: TabState, follower: InProcessFollower
) -> None:
    network, position = NetworkView(tab), 10
    follower.training.deactivate_filter(tab.structure.layers[1].filter_ids[8])  # type: ignore[union-attr]
    follower.train(2 * DEAD_BATCHES)
    network.update()
    node = int(follower.state.offsets[1]) + 8  # type: ignore[union-attr]
    assert network.numbers.data["state"][node] == NodeState.DEAD
    send_command(tab, "show_moment", row=position)
    network.update()
    assert network.numbers.data["state"][node] == NodeState.NORMAL


def test_no_filter_is_called_alive_before_enough_batches_are_known(
    world: World, tab: TabState, follower: InProcessFollower
) -> None:
    panel = LayerPanel(tab)
    assert not panel.content()["knows_dead_filters"]
    follower.train(DEAD_BATCHES)
    assert panel.content()["knows_dead_filters"]


def test_slices_are_selectable_only_with_many_input_channels(world: World, tab: TabState) -> None:
    panel = LayerPanel(tab)
    assert panel.content()["slices"] == "strongest"
    send_command(tab, "set_kernel_slices", option="mean")
    assert panel.content()["slices"] == "mean"
    send_command(tab, "set_kernel_slices", option="loudest")  # unknown option
    assert panel.content()["slices"] == "mean"

    send_command(tab, "select_largest_gradient_filter", layer=0, first=0, last=0)  # RGB input
    world.layers.request_newest("conv1", "tsne")
    assert panel.content()["slices"] == ""


@pytest.mark.parametrize(
    ("inputs", "kernel", "slices", "depth"),
    [(3, (5,), "strongest", None), (3, (3, 3, 3), "", 0.5), (8, (3, 3, 3), "strongest", 0.5),
     (1, (3, 3, 3), "", 0.5), (64, (), "", None)],
)  # fmt: skip
def test_slices_of_other_kinds_of_layers(
    world: World,
    tab: TabState,
    inputs: int,
    kernel: tuple[int, ...],
    slices: str,
    depth: float | None,
) -> None:
    panel = LayerPanel(tab)
    layer = tab.layer(None)
    assert layer is not None
    world.layers.request_newest(layer.name, "tsne")
    other = replace(layer, in_channels=inputs, kernel_size=kernel)
    assert (panel._slices(other), panel._depth(other)) == (slices, depth)


def test_the_depth_of_slices_is_set_between_the_first_and_the_last(
    world: World, tab: TabState
) -> None:
    assert tab.selection is not None
    for value in (0.75, 1.5, -1.0):
        send_command(tab, "set_volume_slice", value=value)
    assert world.layers.request_newest(tab.selection.layer, "tsne").depth == 0.75


def test_changes_of_several_selected_filters(tab: TabState, follower: InProcessFollower) -> None:
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    send_command(tab, "select_largest_gradient_filter", layer=1, first=3, last=3)
    send_command(tab, "select_filters_by_id", ids=[ids[5], ids[7], ids[5], 10**6])

    assert tab.selected_position() == (1, 5)
    assert LayerPanel(tab).content()["selected"] == [ids[5], ids[7]]

    for command in (
        "stage_freeze_or_unfreeze",
        "toggle_staged_reinitialization",
        "toggle_staged_merge",
        "toggle_staged_removal",
    ):
        send_command(tab, command)
    deliver_replies(tab, follower)
    edits = [change.to_edit(tab.structure) for change in tab.staging.in_send_order()]  # type: ignore[arg-type]
    assert edits == [
        Reinitialize("conv2", [5, 7]),
        Freeze("conv2", [5, 7]),
        MergeFilters("conv2", [5, 7]),
        RemoveFilters("conv2", [5, 7]),
    ]
    for command in (
        "stage_freeze_or_unfreeze",
        "toggle_staged_reinitialization",
        "toggle_staged_merge",
        "toggle_staged_removal",
    ):
        send_command(tab, command)
    assert tab.staging.changes == []


def test_single_filter_cannot_be_merged(tab: TabState) -> None:
    assert LayerPanel(tab).content()["disabled"]["merge"]
    send_command(tab, "toggle_staged_merge")
    assert tab.staging.changes == []


def test_freeze_button_unfreezes_frozen_filters(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=1, first=3, last=3)
    send_command(tab, "stage_freeze_or_unfreeze")
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    assert LayerPanel(tab).content()["freeze_label"] == "Unfreeze"

    send_command(tab, "stage_freeze_or_unfreeze")
    assert tab.staging.changes[0].to_edit(tab.structure) == Unfreeze("conv2", [3])  # type: ignore[arg-type]


def test_stage_set_stages_a_weighted_mean(tab: TabState, follower: InProcessFollower) -> None:
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    send_command(tab, "select_largest_gradient_filter", layer=1, first=3, last=3)
    send_command(
        tab, "stage_filter_as_weighted_mean", ids=[ids[3], ids[8], ids[1]], weights=[0.75, 0.25]
    )
    deliver_replies(tab, follower)

    change = tab.staging.changes[0]
    assert change.to_edit(tab.structure) == SetFilter("conv2", 3, [8, 1], [0.75, 0.25])  # type: ignore[arg-type]
    assert change.title(tab.structure) == "conv2 · filter 3 to the mean of 8, 1"  # type: ignore[arg-type]

    send_command(
        tab, "stage_filter_as_weighted_mean", ids=[ids[3], ids[9]], weights=[1.0]
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
    send_command(tab, "select_largest_gradient_filter", layer=1, first=3, last=3)
    send_command(tab, "stage_filter_as_weighted_mean", ids=ids, weights=weights)

    assert tab.staging.changes == []


def test_multiple_selection_survives_edits(tab: TabState, follower: InProcessFollower) -> None:
    ids = list(tab.structure.layers[1].filter_ids)  # type: ignore[union-attr]
    send_command(tab, "select_largest_gradient_filter", layer=1, first=3, last=3)
    send_command(tab, "select_filters_by_id", ids=[ids[5], ids[7], ids[9]])
    follower.request(RemoveFilters("conv2", [0, 7]), "", 0)
    deliver_replies(tab, follower)

    assert tab.selected_ids() == [ids[5], ids[9]]
    assert tab.selected_position() == (1, 4)
