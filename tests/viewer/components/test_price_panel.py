"""Nodes colored by price, and the removal of the cheapest filters."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.messages import PlanSummary, Refused
from revacnn_lightning.protocol.prices import FilterPrices, RemovalPrice
from revacnn_lightning.protocol.requests import InspectPrices
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.class_colors import ColorByClassPanel
from viewer.components.growth_panel import GrowthGainPanel
from viewer.components.network import NetworkView
from viewer.components.network_data import removal_preview_text
from viewer.components.price_panel import WAITING, ColorByPricePanel
from viewer.tab.tab_state import TabState


def receive_prices(tab: TabState, follower: InProcessFollower, n_measured: int = 5) -> np.ndarray:
    """Let prices arrive; return the estimates."""
    assert tab.state is not None
    assert tab.structure is not None
    estimates = np.arange(tab.state.n_filters, dtype=np.float32)[::-1].copy()
    changes = np.where(np.arange(len(estimates)) < n_measured, 0.1, np.nan).astype(np.float32)
    structure = tab.structure
    message = FilterPrices(structure.run, structure.version, 1, estimates, changes, changes)
    follower.filter_prices.receive(message, tab.state)
    return estimates


def test_prices_are_requested_only_while_they_are_shown(
    tab: TabState, follower: InProcessFollower
) -> None:
    panel, sent = ColorByPricePanel(tab), []

    def send(request: InspectPrices) -> str:
        sent.append(request)
        return "id"

    assert panel.content()["shown"] is False
    follower.filter_prices.tick(tab.state, send)
    assert sent == []
    send_command(tab, "toggle_color_by_price")
    assert panel.content() == {"shown": True, "text": WAITING, "refusal": WAITING}
    follower.filter_prices.tick(tab.state, send)
    assert sent == [InspectPrices()]
    follower.filter_prices.receive(Refused("id", "not now", 0), tab.state)
    assert panel.content()["text"] == "not now"
    receive_prices(tab, follower)
    assert panel.content() == {"shown": True, "text": "5 of 40 measured", "refusal": ""}


def test_it_was_not_said_how_old_measured_prices_are(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "toggle_color_by_price")
    receive_prices(tab, follower, 38)
    newest = follower.filter_prices.newest
    assert newest is not None
    assert tab.state is not None
    renewed = replace(newest, step=2000, oldest=361, refused=[38, 39])
    follower.filter_prices.receive(renewed, tab.state)
    text = ColorByPricePanel(tab).content()["text"]
    assert text == "38 of 38 measured, in the last 1\u202f640 batches; 2 cannot be"


def test_two_measurements_of_one_removal_were_not_told_apart() -> None:
    plan = PlanSummary("Remove", price=RemovalPrice(-0.0035, 0.0042, 0.4, 16, 1234))
    said = "removal: predicted loss −0.00350 ± 0.00420, measured at batch 1\u202f234"
    assert removal_preview_text(plan, "conv1") == said
    assert removal_preview_text(PlanSummary("Remove"), "conv1") == ""


@pytest.mark.parametrize(("kind", "said"), [("finished", "has ended"), ("paused", "is paused")])
def test_the_page_waited_for_batches_that_do_not_come(
    tab: TabState, follower: InProcessFollower, kind: str, said: str
) -> None:
    """It said "waiting for the next batches" after the end of the run, and in a pause."""
    send_command(tab, "toggle_color_by_price")
    send_command(tab, "request_growth_gains")
    follower.kind = kind
    assert said in ColorByPricePanel(tab).content()["text"]
    assert said in GrowthGainPanel(tab).content()["text"]
    send_command(tab, "color_nodes_by_class_response", first=1)
    assert said in ColorByClassPanel(tab).content()["text"]


def test_nodes_have_the_color_of_their_price(tab: TabState, follower: InProcessFollower) -> None:
    view = NetworkView(tab)
    view.update()
    assert "tone" not in view.numbers.data
    send_command(tab, "toggle_color_by_price")
    receive_prices(tab, follower)
    view.update()
    tone = view.numbers.data["tone"]
    assert tone[0] > 0.9
    assert tone[-1] < 0.1
    assert len(view.numbers.data["colored_by"]) == len(tone)  # the tooltip did not say it
    assert len(tone) == len(view.numbers.data["amplitude"])
    send_command(tab, "toggle_color_by_price")
    view.update()
    assert "tone" not in view.numbers.data


def test_the_cheapest_filters_are_staged_for_removal(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "toggle_color_by_price")
    receive_prices(tab, follower)
    assert tab.structure is not None
    send_command(tab, "stage_remove_cheapest_in_network", count=3)
    last = tab.structure.layers[-1]
    assert sorted(tab.staging.removed_ids(last.name)) == sorted(last.filter_ids[-3:])
