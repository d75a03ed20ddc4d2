from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from tests.viewer.conftest import InProcessFollower
from tests.viewer.runs.test_layer_details import World
from tests.viewer.tab.actions import send_command
from viewer.components.histograms import NO_GRADIENT, NOT_RECORDED, HistogramsOverTimePane
from viewer.tab.tab_state import TabState


def test_a_hidden_pane_sends_and_requests_nothing(tab: TabState, world: World) -> None:
    pane = HistogramsOverTimePane(tab)
    assert pane.update() is False
    world.tick(100)
    assert world.sent == []


def test_an_open_pane_requests_the_layer_without_projecting_its_views(
    tab: TabState, world: World
) -> None:
    send_command(tab, "set_pane", option="histograms")
    pane = HistogramsOverTimePane(tab)
    world.now += 100  # since the views were visible
    world.layers.tick(world.follower.state, world.record)
    assert pane.update()
    world.tick(0.1)
    world.deliver(world.detail())
    world.tick(0.1)
    assert [request.layer for request in world.sent] == ["conv2"]
    assert world.worker.submitted == []


def test_the_pane_shows_a_row_per_batch_and_describes_the_newest(
    tab: TabState, world: World, follower: InProcessFollower
) -> None:
    send_command(tab, "set_pane", option="histograms")
    pane = HistogramsOverTimePane(tab)
    for _ in range(3):
        follower.train()
        world.deliver(world.detail())
    assert pane.update()
    data = pane.source.data
    assert (data["layer"], data["status"]) == ("conv2", "")
    weights = data["weights"]
    assert list(weights["steps"])[-3:] == [4, 5, 6]
    assert weights["shares"].shape[0] == len(weights["steps"]) == 4
    assert 0 < weights["peak"] <= 1
    assert "batches 3 to 6 · standard deviation" in weights["facts"]
    assert pane.update() is False


def test_a_frozen_layer_says_why_it_has_no_gradients(tab: TabState, world: World) -> None:
    send_command(tab, "set_pane", option="histograms")
    send_command(tab, "select_largest_gradient_filter", layer=0, first=0, last=0)
    pane = HistogramsOverTimePane(tab)
    pane.update()
    world.deliver(replace(world.detail("conv1"), gradient_histogram=None))
    assert pane.update()
    assert pane.source.data["gradients"]["note"] == NO_GRADIENT
    assert np.isfinite(pane.source.data["weights"]["shares"]).all()


def test_a_layer_that_was_not_opened_before_the_end_says_so(
    tab: TabState, world: World, follower: InProcessFollower
) -> None:
    send_command(tab, "set_pane", option="histograms")
    send_command(tab, "select_largest_gradient_filter", layer=2, first=0, last=0)
    follower.kind = "finished"
    pane = HistogramsOverTimePane(tab)
    assert pane.update()
    assert pane.source.data["status"] == NOT_RECORDED
