from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.messages import Planned, Refused, Structure
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters, Undo
from tests.viewer.conftest import InProcessFollower
from viewer.components.network import NetworkView
from viewer.glyphs import Command, PageLink
from viewer.layout import NodeState
from viewer.tab.commands import perform
from viewer.tab.tab_state import TabState


def do(tab: TabState, command: str, **args: Any) -> None:
    perform(tab, Command(None, command, args))


def settle(tab: TabState, follower: InProcessFollower, rounds: int = 6) -> None:
    for _ in range(rounds):
        follower.deliver()
        tab.update()


def network(tab: TabState) -> Structure:
    assert tab.structure is not None
    return tab.structure


def test_something_is_selected_from_the_start(tab: TabState) -> None:
    assert tab.selected() == (0, 0)


def test_a_click_on_several_filters_selects_the_strongest(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    gradient = follower.state.layer_values("gradient", 1)[4:9]
    do(tab, "select", layer=1, first=4, last=8)
    assert tab.selected() == (1, 4 + int(np.argmax(gradient)))


def test_the_selection_follows_its_filter_through_edits(
    tab: TabState, follower: InProcessFollower
) -> None:
    do(tab, "select", layer=1, first=6, last=6)
    follower.request(RemoveFilters("conv2", [0, 1]), "elsewhere", 0)
    settle(tab, follower)
    assert tab.selected() == (1, 4)


def test_when_the_selected_filter_goes_the_next_one_is_selected(
    tab: TabState, follower: InProcessFollower
) -> None:
    do(tab, "select", layer=1, first=6, last=6)
    assert follower.state is not None
    following = follower.state.layer_ids(1)[8]
    follower.request(RemoveFilters("conv2", [2, 6, 7]), "this one and others", 0)
    settle(tab, follower)
    assert tab.selected() == (1, 5)
    assert tab.selection is not None
    assert tab.selection.filter_id == following


def test_when_the_last_filter_goes_the_one_before_it_is_selected(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    last = len(follower.state.layer_ids(1)) - 1
    do(tab, "select", layer=1, first=last, last=last)
    follower.request(RemoveFilters("conv2", [last]), "this one", 0)
    settle(tab, follower)
    assert tab.selected() == (1, last - 1)


def test_keys_move_within_and_between_layers(tab: TabState) -> None:
    do(tab, "select", layer=1, first=8, last=8)
    do(tab, "move", dx=0, dy=1)
    assert tab.selected() == (1, 9)
    do(tab, "move", dx=-1, dy=0)
    assert tab.selected() == (0, 4)
    do(tab, "move", dx=-1, dy=-99)
    assert tab.selected() == (0, 0)


def test_staging_asks_for_a_plan_and_apply_sends_it(
    tab: TabState, follower: InProcessFollower
) -> None:
    do(tab, "select", layer=1, first=6, last=6)
    do(tab, "stage_remove")
    assert follower.requests[-1].body == RemoveFilters("conv2", [6])
    assert all(request.dry_run for request in follower.requests)
    settle(tab, follower)
    assert isinstance(tab.staging.rows[0].plan, Planned)
    do(tab, "apply")
    sent = [(r.body, r.version) for r in follower.requests if not r.dry_run]
    assert sent == [(RemoveFilters("conv2", [6]), 0)]
    assert tab.applying.busy
    settle(tab, follower)
    assert not tab.applying.busy
    assert tab.staging.rows == []
    assert tab.applying.reply is not None
    assert (tab.applying.reply.state, tab.applying.reply.text) == ("applied", "conv2: 15 filters")


def test_several_changes_go_one_after_the_other_each_for_its_own_structure(
    tab: TabState, follower: InProcessFollower
) -> None:
    do(tab, "stage_add", layer=1)
    do(tab, "select", layer=1, first=6, last=6)
    do(tab, "stage_remove")
    do(tab, "stage_add", layer=2)
    settle(tab, follower)
    do(tab, "apply")
    settle(tab, follower)
    sent = [(r.body, r.version) for r in follower.requests if not r.dry_run]
    assert sent == [
        (RemoveFilters("conv2", [6]), 0),
        (AddFilters("conv2", 1), 1),
        (AddFilters("conv3", 1), 2),
    ]
    assert [len(layer.filter_ids) for layer in network(tab).layers] == [8, 16, 17]


def test_a_refusal_is_known_before_apply(tab: TabState, follower: InProcessFollower) -> None:
    for index in range(8):
        do(tab, "select", layer=0, first=index, last=index)
        do(tab, "stage_remove")
    settle(tab, follower)
    plan = tab.staging.rows[0].plan
    assert isinstance(plan, Refused)
    assert "without filters" in plan.reason
    do(tab, "apply")
    assert not tab.applying.busy
    assert all(request.dry_run for request in follower.requests)


def test_minus_takes_the_least_active_filter_and_then_the_next(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    start = follower.state.n_filters + 8
    order = np.argsort(
        follower.state.histories.filters.rows[:, start : start + 16].mean(axis=0), kind="stable"
    )
    do(tab, "stage_least", layer=1)
    do(tab, "stage_least", layer=1)
    staged = tab.staging.removed_ids("conv2")
    assert staged == [network(tab).layers[1].filter_ids[i] for i in order[:2]]


def test_a_layer_that_refuses_is_not_staged(tab: TabState, follower: InProcessFollower) -> None:
    follower.training.convs[1].refused = "because"
    follower.training.version = 1
    assert follower.state is not None
    follower.state.receive(follower.training.structure())
    tab.update()
    do(tab, "stage_add", layer=1)
    do(tab, "stage_least", layer=1)
    assert tab.staging.rows == []


def test_nothing_is_staged_after_the_run_has_ended(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.kind = "finished"
    do(tab, "stage_add", layer=1)
    for command in ("remove", "split", "freeze", "reinitialize"):
        do(tab, f"stage_{command}")
    do(tab, "stage_set", ids=[0, 1], weights=[1.0])
    assert tab.staging.rows == []
    assert "ended" in tab.refused(network(tab).layers[0])


def test_undo_asks_the_training(tab: TabState, follower: InProcessFollower) -> None:
    do(tab, "undo")
    settle(tab, follower)
    assert isinstance(follower.requests[-1].body, Undo)
    assert tab.applying.reply is not None
    assert (tab.applying.reply.state, tab.applying.reply.text) == (
        "refused",
        "there is no edit to take back",
    )


def test_a_stage_opens_and_closes_as_a_whole(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    tab = TabState(make_follower("resnet18"), PageLink())
    tab.update()
    do(tab, "open", layer=6)
    do(tab, "open_stage", layer=6)
    assert len(tab.opened) == 5
    assert all(name.startswith("layer2.") for name in tab.opened)
    do(tab, "open_stage", layer=7)
    assert not tab.opened


def test_another_run_begins_with_nothing_staged(tab: TabState, follower: InProcessFollower) -> None:
    do(tab, "stage_add", layer=1)
    do(tab, "open", layer=1)
    other = InProcessFollower(type(follower.training)("alexnet"))
    other.attach()
    follower.state = other.state
    tab.update()
    assert tab.staging.rows == []
    assert not tab.opened
    assert tab.selected() == (0, 0)


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("nonsense", {}),
        ("select", {"layer": 99}),
        ("select", {"layer": "x"}),
        ("select", {}),
        ("sort", {"by": "__class__"}),
        ("stage_add", {"layer": -5}),
        ("unstage", {"row": "no such row"}),
        ("follow", {"run": "nobody"}),
        ("move", {"dx": [1]}),
    ],
)
def test_void_commands_do_nothing(tab: TabState, command: str, args: dict[str, Any]) -> None:
    before = tab.selected(), tab.sort_by, len(tab.staging.rows)
    do(tab, command, **args)
    assert (tab.selected(), tab.sort_by, len(tab.staging.rows)) == before


def test_replies_of_a_newer_structure_wait_for_it(
    tab: TabState, follower: InProcessFollower
) -> None:
    do(tab, "stage_add", layer=1)
    settle(tab, follower)
    do(tab, "apply")
    applied = next(r for r in follower._replies if type(r).__name__ == "Applied")
    assert follower.state is not None
    follower.state.receive(replace(applied, version=5))  # type: ignore[type-var]
    tab.update()
    assert tab.applying.busy


def test_looking_back_shows_what_was(tab: TabState, follower: InProcessFollower) -> None:
    follower.train(40)
    state = follower.state
    assert state is not None
    before = state.layer_values("gradient", 1).copy()
    follower.train(30)
    do(tab, "time", at=state.histories.filters.length - 31)
    assert tab.playback.moment is not None
    np.testing.assert_allclose(tab.layer_values("gradient", 1), before, rtol=1e-6)
    clock = tab.clock()
    follower.train()
    assert tab.clock() == clock  # the past does not change
    do(tab, "live")
    assert tab.playback.moment is None
    assert tab.values() is state.latest


def test_playing_ends_live(
    tab: TabState, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower.train(20)
    state = follower.state
    assert state is not None
    monkeypatch.setattr("viewer.tab.playback.FRAME_SECONDS", 0.0)
    do(tab, "play")
    assert (tab.playback.playing, tab.playback.row(state)) == (True, 1)
    for _ in range(30):
        tab.update()
    assert not tab.playback.playing
    assert tab.playback.moment is None


def test_filters_that_did_not_exist_yet_are_absent(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.request(AddFilters("conv1", 1), "add", 0)
    follower.deliver()
    follower.train(5)
    do(tab, "time", at=0)
    assert np.isnan(tab.layer_values("gradient", 0)[8])
    view = NetworkView(tab)
    view.update()
    assert view.numbers.data["state"][8] == NodeState.ABSENT


def test_what_goes_together_is_asked_before_anything_is_staged(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("resnet18")
    tab = TabState(follower, PageLink())
    tab.update()
    assert tab.company() == (None, "")
    settle(tab, follower)
    plan, reason = tab.company()
    assert plan is not None
    assert reason == ""
    assert [part.layer for part in plan.filter_changes] == [
        "conv1",
        "layer1.0.conv2",
        "layer1.1.conv2",
    ]
    asked = len(follower.requests)
    settle(tab, follower)
    assert len(follower.requests) == asked  # once is enough
    do(tab, "peek", layer=1, first=3)
    settle(tab, follower)
    assert follower.requests[-1].body == RemoveFilters("layer1.0.conv1", [3])
    assert all(request.dry_run for request in follower.requests)
    do(tab, "peek")
    assert tab.company()[0] == plan
