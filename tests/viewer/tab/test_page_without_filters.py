"""A network without layers, and one without a single active filter, are shown as what they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from bokeh.document import Document
from msgspec.structs import replace

from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.runs.layer_details import VIEWS
from viewer.tab.commands import COMMANDS
from viewer.tab.page import Page

NOTHING = [np.nan, 0.0]


def open_page(follower: InProcessFollower) -> Page:
    page = Page(follower)
    page.open(Document())
    return page


def update_all(page: Page) -> None:
    for component in page.components:
        component.update()


@pytest.mark.filterwarnings("error")
def test_a_network_without_layers_shows_its_metrics(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("linear")
    page = open_page(follower)
    for name in COMMANDS:
        follower.train(3)
        send_command(page.tab, name, layer=0, first=0, last=0, row=1, chart=1, option="dead")
        update_all(page)
    parts = {part.part: part.data for part in page.components.frame_parts()}
    notice = parts["header"]["network_notice"]
    assert "no convolution and no hidden linear layer" in notice
    assert 'layers="all"' in notice
    assert parts["network_layout"].get("layers", []) == []
    assert page.components.update_next_chart()
    (loss,) = page.components.footer.charts
    assert len(loss.source.data["step"][0]) > len(COMMANDS)


def test_without_layers_the_page_waited_forever_and_offered_what_cannot_work(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("linear")
    page = open_page(follower)
    for _ in range(MIN_BATCHES + 1):
        follower.train(1)
        update_all(page)
    judgment = follower.state.copy_verdict_evidence().judge()  # type: ignore[union-attr]
    assert [one.is_known for one in judgment.verdicts] == [False]
    parts = {part.part: part.data for part in page.components.frame_parts()}
    reason = parts["header"]["watch_refusal"]
    assert 'layers="all"' in reason
    for view in VIEWS:
        assert parts[f"view-{view}"]["status"] == reason
        assert not parts[f"view-{view}"]["busy"]
    refused = parts["layer_panel"]["disabled"] | parts["selection_panel"]["disabled"]
    assert set(refused) == {"freeze", "reinitialize", "merge", "add", "split", "remove"}
    assert set(refused.values()) == {reason}


@pytest.mark.filterwarnings("error")
def test_the_last_layer_may_leave_the_network(follower: InProcessFollower) -> None:
    page = open_page(follower)
    update_all(page)
    follower.training.convs, follower.training.ids = [], []
    follower.training.version += 1
    follower.state.receive(follower.training.structure())  # type: ignore[union-attr]
    page.tab.update()
    follower.train(3)
    update_all(page)
    assert page.tab.selected_position() is None
    assert page.components.network.network_layout.data["layers"] == []


@pytest.mark.parametrize("value", NOTHING)
@pytest.mark.filterwarnings("error")
def test_no_filter_has_a_value_to_show(follower: InProcessFollower, value: float) -> None:
    page = open_page(follower)
    for chart, option in enumerate(("loss", "gradient", "dead")):
        send_command(page.tab, "set_chart", chart=chart, option=option)
    for pane in ("layer", "maps", "inspection", "statistics"):
        for _ in range(8):
            follower.training.step += 1
            snapshot = follower.training.snapshot()
            values = np.full_like(snapshot.values, value)
            follower.state.receive(replace(snapshot, values=values))  # type: ignore[union-attr]
        send_command(page.tab, "set_pane", option=pane)
        update_all(page)
