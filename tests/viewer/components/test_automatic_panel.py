"""Pruning to a budget and the policy, as the page shows and controls them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from revacnn_lightning.protocol.automatic_requests import ControlPruning, PruneTo, SetPolicy
from revacnn_lightning.protocol.automatic_state import AutomaticState, PruningState
from revacnn_lightning.protocol.requests import Command
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.automatic_panel import AutomaticEditsPanel
from viewer.tab.tab_state import TabState

RUNNING = PruningState("running", "macs", 0.5, 1000, 750, 500, 12, 3, 0.0125)


def show(tab: TabState, pruning: PruningState | None) -> dict[str, Any]:
    """Return what the panel shows of a pruning."""
    assert tab.state is not None
    status = tab.state.status
    assert status is not None
    tab.state.status = msgspec.structs.replace(status, automatic=AutomaticState(pruning=pruning))
    return AutomaticEditsPanel(tab).content()


def test_a_pruning_is_shown_with_its_progress_also_without_prices(tab: TabState) -> None:
    assert not show(tab, None)["shown"]
    shown = show(tab, RUNNING)
    assert (shown["shown"], shown["progress"], shown["revocable"]) == (True, 0.5, True)
    assert shown["text"] == (
        "Pruning: now 75%; target: 50% of the MACs; 12 filters removed, predicted loss +0.0125"
    )
    ended = msgspec.structs.replace(RUNNING, state="ended", cost=float("nan"), note="undone")
    shown = show(tab, ended)
    assert not shown["shown"]
    assert shown["text"].endswith("12 filters removed (undone)")
    send_command(tab, "toggle_color_by_price")
    assert show(tab, None)["shown"]


@pytest.mark.parametrize(
    ("command", "arguments", "request_body"),
    [
        (
            "prune_to",
            {"value": 0.4, "option": "macs", "count": 2, "batches": 7},
            PruneTo(macs=0.4, filters=2, every=7),
        ),
        (
            "prune_to",
            {"value": 0.4, "option": "parameters", "count": 500},
            PruneTo(parameters=0.4, filters=64, every=1),
        ),
        ("control_pruning", {"action": "undo"}, ControlPruning("undo")),
        ("set_verdict_policy", {"option": "propose"}, SetPolicy("propose")),
    ],
)
def test_the_page_sends_what_was_chosen(
    tab: TabState,
    follower: InProcessFollower,
    command: str,
    arguments: dict[str, object],
    request_body: Command,
) -> None:
    send_command(tab, command, **arguments)
    assert follower.requests[-1].body == request_body


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("prune_to", {"value": 1.0, "option": "macs"}),
        ("prune_to", {"value": 0.5, "option": "layers"}),
        ("control_pruning", {"action": "stop"}),
        ("set_verdict_policy", {"option": "everything"}),
    ],
)
def test_what_makes_no_sense_is_not_sent(
    tab: TabState, follower: InProcessFollower, command: str, arguments: dict[str, object]
) -> None:
    before = len(follower.requests)
    send_command(tab, command, **arguments)
    assert len(follower.requests) == before
