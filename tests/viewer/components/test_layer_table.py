from __future__ import annotations

import time

import numpy as np
import pytest

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.protocol.requests import RemoveFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.layer_table import NUMBERS_SECONDS, LayerTable
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_closed_table_sends_nothing(tab: TabState, follower: InProcessFollower) -> None:
    table = LayerTable(tab)
    assert table.update() is False
    send_command(tab, "set_main_view", option="table")
    assert table.update()
    send_command(tab, "set_main_view", option="network")
    follower.train()
    assert table.update() is False


def test_a_network_without_layers_has_an_empty_table(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.training.convs, follower.training.ids = [], []
    follower.training.version += 1
    follower.attach()
    tab.update()
    send_command(tab, "set_main_view", option="table")
    table = LayerTable(tab)
    assert table.update()
    assert (table.rows.data, table.source.data) == ({"layers": []}, {})


def test_an_unknown_main_view_is_ignored(tab: TabState) -> None:
    send_command(tab, "set_main_view", option="list")
    assert tab.main_view == "network"


def test_rows_have_shapes_and_costs_and_statistics_are_means_over_the_filters(
    tab: TabState,
) -> None:
    send_command(tab, "set_main_view", option="table")
    table = LayerTable(tab)
    table.update()
    first, second, _ = table.rows.data["layers"]
    assert (first["name"], first["type"], first["filters"]) == ("conv1", "Conv2d", 8)
    assert (second["inputs"], second["kernel"], second["output"]) == (8, [3, 3], [28, 28])
    assert second["parameters"] == 8 * 16 * 9 + 16
    assert second["macs"] == 28 * 28 * 8 * 16 * 9
    for name in ("gradient", "activation", "update_ratio"):
        expected = [tab.layer_values(name, layer).mean() for layer in range(3)]
        np.testing.assert_allclose(table.source.data[name], expected, rtol=1e-5)
    assert table.source.data["dead"].tolist() == [0, 0, 0]


def test_statistics_are_sent_twice_a_second_and_rows_with_an_edit_only(
    tab: TabState, follower: InProcessFollower, clock: list[float]
) -> None:
    send_command(tab, "set_main_view", option="table")
    table = LayerTable(tab)
    table.update()
    rows = table.rows.data
    follower.train()
    assert table.update() is False
    clock[0] += NUMBERS_SECONDS
    assert table.update()
    assert table.rows.data is rows
    assert table.update() is False  # nothing is new
    follower.request(RemoveFilters("conv2", [0]), "", 0)
    deliver_replies(tab, follower)
    assert table.update()
    assert [row["filters"] for row in table.rows.data["layers"]] == [8, 15, 16]


def test_a_past_batch_has_no_statistic_that_the_recording_lacks(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.train(5)
    send_command(tab, "set_main_view", option="table")
    send_command(tab, "show_moment", row=0)
    table = LayerTable(tab)
    table.update()
    assert np.isnan(table.source.data["update_ratio"]).all()
    assert np.isfinite(table.source.data["gradient"]).all()


def test_dead_filters_are_those_of_the_past_batch_and_missing_where_unknown(
    late_follower: InProcessFollower,
) -> None:
    """The table showed the filters that are dead now."""
    tab = TabState(late_follower, PageLink())
    tab.update()
    late_follower.training.deactivate_filter(tab.structure.layers[1].filter_ids[8])  # type: ignore[union-attr]
    late_follower.train(2 * DEAD_BATCHES)
    send_command(tab, "set_main_view", option="table")
    table = LayerTable(tab)
    table.update()
    assert table.source.data["dead"].tolist() == [0, 1, 1]  # one was dead before
    n_moments = len(late_follower.state.histories.moments())  # type: ignore[union-attr]
    for row, dead in ((n_moments - 2 * DEAD_BATCHES, [0, 0, 0]), (0, None)):
        send_command(tab, "show_moment", row=row)
        table = LayerTable(tab)
        table.update()
        found = table.source.data.get("dead")
        assert (None if found is None else found.tolist()) == dead
