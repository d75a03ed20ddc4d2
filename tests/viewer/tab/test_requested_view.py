"""A page's address names what the page shows, and a page that is opened with it shows the same."""

from __future__ import annotations

from collections.abc import Callable

from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.runs.run_state import RunState
from viewer.tab.page_link import PageLink
from viewer.tab.requested_view import RequestedView, address_parameters, parse_address
from viewer.tab.tab_state import TabState


def open_tab(follower: InProcessFollower, view: RequestedView) -> TabState:
    tab = TabState(follower, PageLink(), requested_view=view)
    tab.update()
    return tab


def parse(parameters: dict[str, str]) -> RequestedView:
    """Return what the server reads from an address with these parameters."""
    return parse_address({name: [value.encode()] for name, value in parameters.items() if value})


def test_a_tab_opened_with_the_address_of_another_shows_the_same(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.train(20)
    send_command(tab, "select_largest_gradient_filter", layer=1, first=6, last=6)
    send_command(tab, "set_pane", option="maps")
    send_command(tab, "show_moment", row=5)
    address = address_parameters(tab)
    assert address["layer"] == "conv2"
    assert (address["pane"], address["batch"]) == ("maps", "6")
    other = open_tab(follower, parse(address))
    assert address_parameters(other) == address
    assert other.selected_position() == (1, 6)
    assert other.playback.moment(follower.state) == 5  # type: ignore[arg-type]


def test_the_address_names_a_filter_by_the_id_that_edits_keep(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "select_largest_gradient_filter", layer=1, first=6, last=6)
    address = address_parameters(tab)
    send_command(tab, "select_largest_gradient_filter", layer=1, first=0, last=0)
    send_command(tab, "toggle_staged_removal")
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    assert open_tab(follower, parse(address)).selected_position() == (1, 5)


def test_a_tab_says_what_of_its_address_is_gone(follower: InProcessFollower) -> None:
    def problem(**view: object) -> str:
        return open_tab(follower, RequestedView(**view)).edit_queue.error  # type: ignore[arg-type]

    assert problem(layer="conv2", filter=10**6) == "The filter of this link is no longer in conv2."
    assert problem(layer="conv9") == "The network has no layer conv9, which this link names."
    assert problem(run="3f2a", layer="conv2").startswith("The run 3f2a of this link is no longer")
    assert problem(layer="conv2") == problem() == ""


def test_the_reason_stays_while_the_pointer_moves(follower: InProcessFollower) -> None:
    tab = open_tab(follower, RequestedView(layer="conv9"))
    send_command(tab, "hover_filter", layer=0, first=1)
    assert "conv9" in tab.edit_queue.error
    send_command(tab, "dismiss_reply")
    assert tab.edit_queue.error == ""


def test_invalid_parameters_of_an_address_are_left_out() -> None:
    arguments = {
        "layer": [b"conv2"], "filter": [b"six"], "batch": [b"12"], "run": [b"\xff"], "x": [b""],
    }  # fmt: skip
    assert parse_address(arguments) == RequestedView(layer="conv2", batch=12)
    assert parse_address({}) == RequestedView()


def test_the_moment_of_an_address_is_shown_once_it_is_recorded(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower(batches=0)
    tab = open_tab(follower, RequestedView(batch=3))
    assert tab.playback.is_live
    follower.train(6)
    tab.update()
    assert tab.playback.shown_step == 3
    send_command(tab, "go_live")
    tab.update()
    assert tab.playback.is_live


def test_a_moment_yet_to_come_is_live(follower: InProcessFollower) -> None:
    assert open_tab(follower, RequestedView(batch=10**6)).playback.is_live


def test_a_recording_that_is_played_does_not_change_the_address(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.train(20)
    send_command(tab, "toggle_playback")
    assert address_parameters(tab)["batch"] == ""
    send_command(tab, "toggle_playback")
    assert address_parameters(tab)["batch"] != ""


def test_an_address_is_only_written_when_the_one_that_was_opened_is_shown(
    follower: InProcessFollower,
) -> None:
    structure = follower.training.structure()
    follower.state = RunState(follower.state.connection)  # type: ignore[union-attr]
    tab = open_tab(follower, RequestedView(layer="conv2"))
    assert address_parameters(tab) == {"run": ""}
    follower.state.receive(structure)
    tab.update()
    assert address_parameters(tab)["layer"] == "conv2"
