"""The growth gains in the page: requested by a click, shown as heat, and a filter is staged."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.prices import FilterPrices
from revacnn_lightning.protocol.requests import AddFilters, InspectGrowth
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.growth_panel import GrowthGainPanel
from viewer.components.verdict_panel import EstablishedVerdictsPanel
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
    assert GrowthGainPanel(tab).content()["rows"] == []
    send_command(tab, "toggle_color_by_price")
    send_command(tab, "request_growth_gains")
    sent: list[object] = []
    follower.growth.tick(lambda body: (sent.append(body), "id")[1])
    follower.growth.tick(lambda body: (sent.append(body), "id")[1])
    assert sent == [InspectGrowth()]  # once per click
    assert GrowthGainPanel(tab).content()["text"] == "waiting for a batch"
    receive_gains(tab, follower, [0.25, 1.0])
    content = GrowthGainPanel(tab).content()
    assert [(row["layer"], row["heat"]) for row in content["rows"]] == [(1, 1.0), (0, 0.25)]
    assert "64 images" in content["text"]


def receive_prices(tab: TabState, cheap_layer: int) -> None:
    """Give all filters a price but those of one layer, which cost nothing."""
    structure, state = tab.structure, tab.state
    assert structure is not None
    assert state is not None
    counts = [len(layer.filter_ids) for layer in structure.layers]
    layers = np.repeat(np.arange(len(counts)), counts)
    changes = (layers != cheap_layer).astype(np.float32)
    prices = FilterPrices(structure.run, structure.version, 1, changes, changes, changes, loss=2.0)
    tab.follower.filter_prices.receive(prices, state)


def test_a_layer_with_filters_to_spare_was_listed_first_in_where_to_grow(
    tab: TabState, follower: InProcessFollower
) -> None:
    """It was called too wide at the same time."""
    assert tab.structure is not None
    send_command(tab, "toggle_color_by_price")
    receive_gains(tab, follower, [0.25, 1.0, 0.2])
    assert GrowthGainPanel(tab).content()["rows"][0]["layer"] == 1
    receive_prices(tab, 1)
    rows = GrowthGainPanel(tab).content()["rows"]
    assert [row["layer"] for row in rows][-1] == 1
    assert "filters to spare" in rows[-1]["text"]
    assert "reinitialize some of these" in rows[-1]["title"]
    verdicts = EstablishedVerdictsPanel(tab).content()["rows"]
    own = [row for row in verdicts if row["layer"] == 1]
    assert [row["kind"] for row in own] == ["too_wide"]
    assert "growth gain of 1" in own[0]["note"]


def test_a_filter_is_added_to_a_layer_that_is_too_narrow(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert tab.structure is not None
    send_command(tab, "toggle_color_by_price")
    receive_gains(tab, follower, [0.25, 1.0, 0.2])
    (row,) = [
        r for r in EstablishedVerdictsPanel(tab).content()["rows"] if r["kind"] == "too_narrow"
    ]
    (remedy,) = row["remedies"]
    assert (row["layer"], remedy["label"]) == (1, "Add")
    send_command(tab, "stage_remedy", layer=1, ids=remedy["ids"], option=remedy["option"])
    (change,) = tab.staging.changes
    name = tab.structure.layers[1].name
    assert change.to_edit(tab.structure) == AddFilters(name, 1, directed=True)


def test_a_filter_is_staged_in_the_best_direction(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert tab.structure is not None
    send_command(tab, "stage_add_best_direction", layer=0)
    (change,) = tab.staging.changes
    name = tab.structure.layers[0].name
    assert change.to_edit(tab.structure) == AddFilters(name, 1, directed=True)
    assert change.title(tab.structure) == f"1 filter to {name} where it helps most"


def test_why_there_are_no_newer_gains_is_said_beside_those_known(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "toggle_color_by_price")
    receive_gains(tab, follower, [0.25, 1.0])
    assert tab.structure is not None
    assert tab.state is not None
    unknown = np.full(len(tab.structure.layers), np.nan, np.float32)
    notes = ["the run is paused"] * len(unknown)
    structure = tab.structure
    message = GrowthGains(structure.run, structure.version, 9, unknown, unknown, 0, notes=notes)
    follower.growth.receive(message, tab.state)
    content = GrowthGainPanel(tab).content()
    assert (content["text"], len(content["rows"])) == ("the run is paused", 2)
