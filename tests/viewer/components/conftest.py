"""Shared fixture: a layer whose details the training sends."""

from __future__ import annotations

import pytest

from tests.viewer.conftest import InProcessFollower
from tests.viewer.runs.test_layer_details import World
from tests.viewer.tab.actions import send_command
from viewer.tab.tab_state import TabState


@pytest.fixture
def world(follower: InProcessFollower, tab: TabState, monkeypatch: pytest.MonkeyPatch) -> World:
    """``conv2`` is selected, and the training sends its details."""
    world = World(follower, monkeypatch)
    follower.layer_details = world.layers
    send_command(tab, "select_largest_gradient_filter", layer=1, first=3, last=3)
    world.layers.request_newest("conv2", "tsne")
    world.deliver(world.detail())
    return world
