from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.access_messages import Access
from revacnn_lightning.protocol.messages import Planned, Refused, Structure
from revacnn_lightning.protocol.requests import AddFilters, Redo, RemoveFilters, Undo
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.network import NetworkView
from viewer.components.staging_bar import StagingBar
from viewer.layout import NodeState
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState


def structure(tab: TabState) -> Structure:
    assert tab.structure is not None
    return tab.structure


def test_initially_the_first_filter_is_selected(tab: TabState) -> None:
    assert tab.selected_position() == (0, 0)


def test_select_range_selects_largest_gradient(tab: TabState, follower: InProcessFollower) -> None:
    assert follower.state is not None
    gradient = follower.state.layer_values("gradient", 1)[4:9]
    send_command(tab, "select_largest_gradient_filter", layer=1, first=4, last=8)
    assert tab.selected_position() == (1, 4 + int(np.argmax(gradient)))


def test_selection_keeps_its_filter_after_an_edit(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=1, first=6, last=6)
    follower.request(RemoveFilters("conv2", [0, 1]), "other filters", 0)
    deliver_replies(tab, follower)
    assert tab.selected_position() == (1, 4)


def test_removing_the_selected_filter_selects_the_next(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=1, first=6, last=6)
    assert follower.state is not None
    next_id = follower.state.layer_ids(1)[8]
    follower.request(RemoveFilters("conv2", [2, 6, 7]), "the selected filter and others", 0)
    deliver_replies(tab, follower)
    assert tab.selected_position() == (1, 5)
    assert tab.selection is not None
    assert tab.selection.filter_id == next_id


def test_removing_the_selected_layer_selects_the_one_before(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=2, first=6, last=6)
    assert follower.state is not None
    shorter = replace(structure(tab), layers=structure(tab).layers[:2], edges=[], version=1)
    follower.state.receive(shorter)
    tab.update()
    assert tab.selected_position() == (1, 0)


def test_removing_the_last_filter_selects_the_previous(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    last = len(follower.state.layer_ids(1)) - 1
    send_command(tab, "select_largest_gradient_filter", layer=1, first=last, last=last)
    follower.request(RemoveFilters("conv2", [last]), "the selected filter", 0)
    deliver_replies(tab, follower)
    assert tab.selected_position() == (1, last - 1)


def test_move_selection_within_and_between_layers(tab: TabState) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=1, first=8, last=8)
    send_command(tab, "move_selection", dx=0, dy=1)
    assert tab.selected_position() == (1, 9)
    send_command(tab, "move_selection", dx=-1, dy=0)
    assert tab.selected_position() == (0, 4)
    send_command(tab, "move_selection", dx=-1, dy=-99)
    assert tab.selected_position() == (0, 0)


def test_staging_requests_a_plan_and_apply_sends_the_edit(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=1, first=6, last=6)
    send_command(tab, "toggle_staged_removal")
    assert follower.requests[-1].body == RemoveFilters("conv2", [6])
    assert all(request.dry_run for request in follower.requests)
    deliver_replies(tab, follower)
    assert isinstance(tab.staging.changes[0].plan, Planned)
    send_command(tab, "apply_staged")
    sent = [(r.body, r.version) for r in follower.requests if not r.dry_run]
    assert sent == [(RemoveFilters("conv2", [6]), 0)]
    assert tab.edit_queue.is_busy
    deliver_replies(tab, follower)
    assert not tab.edit_queue.is_busy
    assert tab.staging.changes == []
    reply = tab.edit_queue.shown_reply
    assert reply is not None
    assert (reply.state, reply.text) == ("applied", "conv2: 15 filters")


def test_changes_are_sent_one_at_a_time_with_the_current_version(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "stage_add", layer=1)
    send_command(tab, "select_largest_gradient_filter", layer=1, first=6, last=6)
    send_command(tab, "toggle_staged_removal")
    send_command(tab, "stage_add", layer=2)
    deliver_replies(tab, follower)
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    sent = [(r.body, r.version) for r in follower.requests if not r.dry_run]
    assert sent == [
        (RemoveFilters("conv2", [6]), 0),
        (AddFilters("conv2", 1), 1),
        (AddFilters("conv3", 1), 2),
    ]
    assert [len(layer.filter_ids) for layer in structure(tab).layers] == [8, 16, 17]


def test_refused_plan_prevents_apply(tab: TabState, follower: InProcessFollower) -> None:
    for index in range(8):
        send_command(tab, "select_largest_gradient_filter", layer=0, first=index, last=index)
        send_command(tab, "toggle_staged_removal")
    deliver_replies(tab, follower)
    plan = tab.staging.changes[0].plan
    assert isinstance(plan, Refused)
    assert "without filters" in plan.reason
    send_command(tab, "apply_staged")
    assert not tab.edit_queue.is_busy
    assert all(request.dry_run for request in follower.requests)


def test_stage_remove_least_active_stages_distinct_filters(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    start = follower.state.n_filters + 8
    order = np.argsort(
        follower.state.histories.filters.rows[:, start : start + 16].mean(axis=0), kind="stable"
    )
    send_command(tab, "stage_remove_least_active_filter", layer=1)
    send_command(tab, "stage_remove_least_active_filter", layer=1)
    staged = tab.staging.removed_ids("conv2")
    assert staged == [structure(tab).layers[1].filter_ids[i] for i in order[:2]]


def test_nothing_is_staged_for_a_layer_that_refuses_edits(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.training.convs[1].refused = "because"
    follower.training.version = 1
    assert follower.state is not None
    follower.state.receive(follower.training.structure())
    tab.update()
    send_command(tab, "select_largest_gradient_filter", layer=1, first=0, last=0)
    for command in (
        "stage_add",
        "stage_remove_least_active_filter",
        "toggle_staged_removal",
        "stage_split",
    ):
        tab.edit_queue.error = ""
        send_command(tab, command, layer=1)
        assert tab.edit_queue.error == "because", command  # it had no effect, silently
    assert tab.staging.changes == []


def test_nothing_is_staged_after_the_run_has_ended(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.kind = "finished"
    send_command(tab, "stage_add", layer=1)
    for command in ("remove", "split", "freeze", "reinitialize"):
        send_command(tab, f"stage_{command}")
    send_command(tab, "stage_filter_as_weighted_mean", ids=[0, 1], weights=[1.0])
    send_command(tab, "stage_insert_layer", layer=1, option="residual")
    send_command(tab, "stage_remove_layer", layer=1)
    send_command(tab, "stage_layer_freeze_or_unfreeze", layer=1)
    send_command(tab, "stage_layer_rate", layer=1, value=0.1)
    assert tab.staging.changes == []
    for command in (
        "apply_staged",
        "undo",
        "redo",
        "control_run",
        "set_hyperparameter",
        "stage_add",
    ):
        send_command(tab, "dismiss_reply")
        assert tab.edit_queue.error == ""
        send_command(tab, command, action="pause")
        assert tab.edit_queue.error == "The run has ended: finished"
    assert [request.body for request in follower.requests if not request.dry_run] == []
    assert "ended" in tab.width_refusal(structure(tab).layers[0])


def test_staged_changes_are_discarded_when_the_run_ends(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "stage_add", layer=1)
    send_command(tab, "stage_insert_layer", layer=0, option="dirac")
    follower.kind = "gone"  # it crashed
    tab.update()
    assert tab.staging.changes == []
    assert tab.edit_queue.can_apply() is False
    assert tab.edit_queue.error.startswith("2 staged changes discarded. The run has ended")


def test_undo_is_sent_to_the_training(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "undo")
    deliver_replies(tab, follower)
    assert isinstance(follower.requests[-1].body, Undo)
    reply = tab.edit_queue.shown_reply
    assert reply is not None
    assert (reply.state, reply.text) == ("refused", "there is no edit to undo")


def test_redo_is_sent_to_the_training(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "redo")
    deliver_replies(tab, follower)
    assert isinstance(follower.requests[-1].body, Redo)
    reply = tab.edit_queue.shown_reply
    assert reply is not None
    assert (reply.state, reply.text) == ("refused", "there is no edit to redo")


def test_one_undo_takes_back_what_one_apply_did(tab: TabState, follower: InProcessFollower) -> None:
    for layer in (0, 1):
        send_command(tab, "stage_add", layer=layer)
    deliver_replies(tab, follower)
    bar = StagingBar(tab)
    bar.update()
    assert bar.source.data["total"].startswith("about ")
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    assert structure(tab).version == 2
    send_command(tab, "undo")
    assert follower.requests[-1].body == Undo(2)


def test_toggle_stage_expands_and_collapses_all_its_layers(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    tab = TabState(make_follower("resnet18"), PageLink())
    tab.update()
    send_command(tab, "toggle_layer_expanded", layer=6)
    send_command(tab, "toggle_stage_layers_expanded", layer=6)
    assert len(tab.expanded_layers) == 5
    assert all(name.startswith("layer2.") for name in tab.expanded_layers)
    send_command(tab, "toggle_stage_layers_expanded", layer=7)
    assert not tab.expanded_layers


def test_another_run_resets_the_tab(tab: TabState, follower: InProcessFollower) -> None:
    send_command(tab, "stage_add", layer=1)
    send_command(tab, "toggle_layer_expanded", layer=1)
    other = InProcessFollower(type(follower.training)("alexnet"))
    other.attach()
    follower.state = other.state
    tab.update()
    assert tab.staging.changes == []
    assert not tab.expanded_layers
    assert tab.selected_position() == (0, 0)


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("nonsense", {}),
        ("select_largest_gradient_filter", {"layer": 99}),
        ("select_largest_gradient_filter", {"layer": "x"}),
        ("select_largest_gradient_filter", {}),
        ("set_filter_bar_statistic", {"option": "__class__"}),
        ("stage_add", {"layer": -5}),
        ("discard_staged", {"key": "no such key"}),
        ("show_run", {"run": "nobody"}),
        ("move_selection", {"dx": [1]}),
    ],
)
def test_invalid_commands_have_no_effect(tab: TabState, command: str, args: dict[str, Any]) -> None:
    before = tab.selected_position(), tab.sort_by, len(tab.staging.changes)
    send_command(tab, command, **args)
    assert (tab.selected_position(), tab.sort_by, len(tab.staging.changes)) == before


def test_queue_stays_busy_until_the_new_structure_arrives(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "stage_add", layer=1)
    deliver_replies(tab, follower)
    send_command(tab, "apply_staged")
    applied = next(r for r in follower._replies if type(r).__name__ == "Applied")
    assert follower.state is not None
    follower.state.receive(replace(applied, version=5))  # type: ignore[type-var]
    tab.update()
    assert tab.edit_queue.is_busy


def test_show_moment_shows_past_statistics(tab: TabState, follower: InProcessFollower) -> None:
    follower.train(40)
    state = follower.state
    assert state is not None
    before = state.layer_values("gradient", 1).copy()
    follower.train(30)
    send_command(tab, "show_moment", row=state.histories.filters.length - 31)
    assert not tab.playback.is_live
    np.testing.assert_allclose(tab.layer_values("gradient", 1), before, rtol=1e-6)
    key = tab.statistics_key()
    follower.train()
    assert tab.statistics_key() == key  # the past does not change
    send_command(tab, "go_live")
    assert tab.playback.is_live
    assert tab.values() is state.latest


def test_playback_ends_live(
    tab: TabState, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower.train(20)
    state = follower.state
    assert state is not None
    monkeypatch.setattr("viewer.tab.playback.FRAME_SECONDS", 0.0)
    send_command(tab, "toggle_playback")
    assert (tab.playback.is_playing, tab.playback.moment(state)) == (True, 1)
    for _ in range(30):
        tab.update()
    assert not tab.playback.is_playing
    assert tab.playback.is_live


def test_moments_before_the_viewer_attached_show_the_means_of_the_layers(
    late_follower: InProcessFollower,
) -> None:
    tab = TabState(late_follower, PageLink())
    tab.update()
    state = late_follower.state
    assert state is not None
    moments = state.histories.moments()
    assert (moments[0], moments[-1]) == (1, 1005)
    send_command(tab, "show_moment", row=3)
    assert tab.playback.shown_step == moments[3]
    assert tab.playback.shows_layer_means(state)
    mean = state.histories.layers["gradient"].rows[3, 1]
    assert tab.layer_values("gradient", 1).tolist() == [mean] * 18
    assert not tab.playback.dead_mask(state).any()
    NetworkView(tab).update()
    send_command(tab, "show_moment", row=len(moments) - 3)
    assert not tab.playback.shows_layer_means(state)
    expected = state.filter_history("activation", 1, 4)[-3]
    assert tab.layer_values("activation", 1)[4] == expected


def test_filters_are_absent_before_they_were_added(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.request(AddFilters("conv1", 1), "add", 0)
    follower.deliver()
    follower.train(5)
    send_command(tab, "show_moment", row=0)
    assert np.isnan(tab.layer_values("gradient", 0)[8])
    view = NetworkView(tab)
    view.update()
    assert view.numbers.data["state"][8] == NodeState.ABSENT


def test_coupled_filters_are_previewed_for_selected_and_hovered_filters(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("resnet18")
    tab = TabState(follower, PageLink())
    tab.update()
    assert tab.coupling_preview() == (None, "")
    deliver_replies(tab, follower)
    plan, reason = tab.coupling_preview()
    assert plan is not None
    assert reason == ""
    assert [change.layer for change in plan.filter_changes] == [
        "conv1",
        "layer1.0.conv2",
        "layer1.1.conv2",
    ]
    n_requests = len(follower.requests)
    deliver_replies(tab, follower)
    assert len(follower.requests) == n_requests  # the preview is cached
    send_command(tab, "hover_filter", layer=1, first=3)
    deliver_replies(tab, follower)
    assert follower.requests[-1].body == RemoveFilters("layer1.0.conv1", [3])
    assert all(request.dry_run for request in follower.requests)
    send_command(tab, "hover_filter")
    assert tab.coupling_preview()[0] == plan


def test_an_observer_steers_nothing_and_reads_why(
    tab: TabState, follower: InProcessFollower
) -> None:
    """One key served all: every page could steer."""
    send_command(tab, "stage_add", layer=0)
    follower.access = Access("ann", "observer")
    tab.update()
    assert tab.staging.changes == []  # what was staged before the run said so
    n_requests = len(follower.requests)
    for name, args in (
        ("toggle_staged_removal", {"layer": 0, "index": 0}),
        ("undo", {}),
        ("control_run", {"action": "pause"}),
        ("set_hyperparameter", {"optimizer": 0, "group": 0, "name": "lr", "value": 0.1}),
    ):
        send_command(tab, name, **args)
        assert "only observes the run: its key 'ann'" in tab.edit_queue.error
    assert all(request.dry_run for request in follower.requests[n_requests:])
    assert tab.structure is not None
    assert tab.width_refusal(tab.structure.layers[0])
    assert tab.ended_reason() == ""


def test_an_observer_sees_coupled_filters(tab: TabState, follower: InProcessFollower) -> None:
    follower.access = Access("ann", "observer")
    send_command(tab, "select_largest_gradient_filter", layer=1, first=6, last=6)
    deliver_replies(tab, follower)
    plan, refusal = tab.coupling_preview()
    assert plan is not None
    assert refusal == ""
