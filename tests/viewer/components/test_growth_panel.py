"""The growth gains in the page: requested by a click, shown as heat, and a filter is staged."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.requests import AddFilters, InspectGrowth
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.growth_panel import GrowthPanel
from viewer.tab.tab_state import TabState


def receive_gains(tab: TabState, follower: InProcessFollower, gains: list[float]) -> None:
    structure, state = tab.structure, tab.state
    assert structure is not None
    assert state is not None
    values = np.full(len(structure.layers), np.nan, np.float32)
    values[: len(gains)] = gains
    message = GrowthGains(structure.run, structure.version, 7, values, values * 0, 64)
    follower.growth.receive(message, state)


def test_the_layer_with_the_largest_gain_comes_first(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert GrowthPanel(tab).content()["rows"] == []
    send_command(tab, "toggle_prices")
    send_command(tab, "request_growth")
    sent: list[object] = []
    follower.growth.tick(lambda body: (sent.append(body), "id")[1])
    follower.growth.tick(lambda body: (sent.append(body), "id")[1])
    assert sent == [InspectGrowth()]  # once per click
    assert GrowthPanel(tab).content()["text"] == "waiting for a batch"
    receive_gains(tab, follower, [0.25, 1.0])
    content = GrowthPanel(tab).content()
    assert [(row["layer"], row["heat"]) for row in content["rows"]] == [(1, 1.0), (0, 0.25)]
    assert "64 images" in content["text"]


def test_a_filter_is_staged_in_the_best_direction(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert tab.structure is not None
    send_command(tab, "stage_add_directed", layer=0)
    (change,) = tab.staging.changes
    name = tab.structure.layers[0].name
    assert change.to_edit(tab.structure) == AddFilters(name, 1, directed=True)
    assert change.title(tab.structure) == f"1 filter to {name} where it helps most"
