"""How many ranks the values are means of, and which one differs."""

from __future__ import annotations

import msgspec
import numpy as np

from revacnn_lightning.protocol.rank_messages import RankValues
from revacnn_lightning.protocol.requests import InspectRanks
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.rank_panel import RankStatisticsPanel
from viewer.tab.tab_state import TabState


def train_in_two_ranks(tab: TabState) -> None:
    assert tab.state is not None
    assert tab.state.snapshot is not None
    tab.state.receive(msgspec.structs.replace(tab.state.snapshot, ranks=2))


def test_nothing_is_shown_of_one_process(tab: TabState) -> None:
    assert not RankStatisticsPanel(tab).content()["shown"]


def test_the_values_of_each_rank_are_requested_only_while_they_are_shown(
    tab: TabState, follower: InProcessFollower
) -> None:
    train_in_two_ranks(tab)
    panel, sent = RankStatisticsPanel(tab), []
    assert panel.content()["text"] == "All values are means over 2 ranks."
    follower.ranks.tick(tab.state, sent.append)
    assert sent == []
    send_command(tab, "toggle_rank_statistics")
    assert panel.content()["text"].startswith("Waiting")
    follower.ranks.tick(tab.state, sent.append)
    layer = tab.layer_names()[0]
    assert sent == [InspectRanks(layer)]
    values = np.array([[[1, 3]], [[2, np.nan]]], np.float32)
    found = RankValues("run", 0, 7, layer, ["gradient"], [0.5, 0.25], [True, False], [0, 0], values)
    follower.ranks.receive(found)
    content = panel.content()
    assert content["text"] == f"{layer}, mean over its filters, up to batch 7: rank 1 differs."
    assert content["head"] == ["rank", "loss", "gradient"]
    first, second = (row["cells"] for row in content["rows"])
    assert (first, second) == (["0", "0.500", "2.00"], ["1", "0.250", "2.00"])
    assert content["rows"][1]["note"] == "out of step: its weights are not those of rank 0"


def test_ranks_of_unknown_loss_were_said_to_have_an_infinite_one(
    tab: TabState, follower: InProcessFollower
) -> None:
    """Right after an edit, no batch has been recorded."""
    train_in_two_ranks(tab)
    send_command(tab, "toggle_rank_statistics")
    layer = tab.layer_names()[0]
    values = np.full((2, 1, 2), np.nan, np.float32)
    found = RankValues(
        "run", 0, 7, layer, ["gradient"], [None, np.nan], [True, True], [0, 0], values
    )
    follower.ranks.receive(found)
    first, second = RankStatisticsPanel(tab).content()["rows"]
    assert (first["cells"][1], first["note"]) == ("–", "")
    assert second["note"] == "its loss is infinite or NaN"
