from __future__ import annotations

import gc
import json
import time
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from bokeh.document import Document
from bokeh.server.callbacks import TimeoutCallback
from msgspec.structs import replace

from revacnn_lightning.protocol.requests import AddFilters
from tests.manual_clock import ManualClock
from tests.viewer.conftest import InProcessFollower
from viewer.components.header import Header
from viewer.runs.registry import RunRegistry
from viewer.runs.run_follower import RunFollower
from viewer.runs.run_state import RunState
from viewer.tab.page import BEAT_SECONDS, Page


def send(page: Page, name: str, args: dict[str, Any]) -> None:
    """Send a command as the browser does: by a change of the link."""
    page.link.command = json.dumps({"serial": 1, "name": name, "args": args})


def make_footer(page: Page) -> None:
    while page.components.footer.make_next() is not None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The clock of pages."""
    one = ManualClock()
    monkeypatch.setattr("viewer.tab.page.time.monotonic", one)
    return one


def test_nothing_is_drawn_for_a_size_that_no_view_has(follower: InProcessFollower) -> None:
    """The first picture was computed, sent and drawn twice: the page reports its size later."""
    page = Page(follower)
    page.open(Document())
    assert page.link.frame is not None
    assert page.components.network.layout is None
    page.link.width, page.link.height, page.link.seen = 800, 400, 0
    page.update()
    assert page.frames_sent == 1
    layout = page.components.network.network_layout.data
    assert (layout["width"], layout["height"]) == (800, 400)


def test_two_tabs_share_no_model(follower: InProcessFollower) -> None:
    first, second = Document(), Document()
    Page(follower).open(first)
    Page(follower, "light").open(second)
    assert {root.name for root in first.roots} == {root.name for root in second.roots}
    models = [{model.id for model in document.models} for document in (first, second)]
    assert not models[0] & models[1]


def test_closed_tab_is_garbage_collected(follower: InProcessFollower) -> None:
    document, registry = Document(), RunRegistry()
    page = Page(follower, registry=registry)
    page.open(document)
    reference = weakref.ref(page)
    assert list(registry.observers) == [page]
    document.clear()
    del page, document
    gc.collect()
    assert reference() is None
    assert list(registry.observers) == []


def test_a_closed_tab_was_updated_until_its_session_ended(
    follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four closed tabs cost the server as much as half an open one, for half a minute."""
    page, document = Page(follower), Document()
    session = SimpleNamespace(connection_count=1)
    monkeypatch.setattr(Document, "session_context", SimpleNamespace(session=session))
    page.open(document)
    session.connection_count = 0
    page.link.seen = 0
    follower.train()
    page.on_update()
    assert document.session_callbacks == []
    session.connection_count = 1  # the network was interrupted
    page.on_update()
    assert document.session_callbacks != []


def test_page_sends_only_after_confirmation(
    follower: InProcessFollower, clock: ManualClock
) -> None:
    page = Page(follower)
    page.link.seen = 0

    def step(seconds: float) -> int:
        clock.now += seconds
        follower.train()
        page.update()
        return page.frames_sent

    assert step(0.1) == 1
    assert step(0.1) == 1  # not painted yet
    clock.now += 0.2  # a slow page: it confirms every frame
    page.link.seen = 1
    assert step(0.03) == 2
    page.link.seen = 2
    assert step(0.01) == 2  # too early for the average rate
    assert step(0.1) == 3
    assert step(1.0) == 3
    assert step(5.0) == 4  # the confirmation was lost
    page.link.seen, page.link.visible = 4, False
    assert step(60.0) == 4  # the tab is hidden


def test_charts_follow_frames_that_the_page_does_not_confirm(
    follower: InProcessFollower, clock: ManualClock
) -> None:
    page, document = Page(follower), Document()
    page.open(document)
    page.link.seen = 0
    scheduled = []
    for _ in range(4):  # the page confirms only the first
        follower.train()
        page.update()
        page.link.seen = 1
        callbacks = document.session_callbacks
        scheduled.append(sum(isinstance(one, TimeoutCallback) for one in callbacks))
        clock.now += 0.1
    assert page.frames_sent == 4
    assert scheduled == [0, 1, 2, 3]


def test_texts_rest_while_only_statistics_are_new(
    follower: InProcessFollower, clock: ManualClock
) -> None:
    """Composing all texts for each batch took the server longer than the network view."""
    page = Page(follower)
    page.open(Document())
    header = next(one for one in page.components.panels if isinstance(one, Header))
    network = page.components.network

    def step(seconds: float) -> tuple[bool, bool]:
        """Train, and return whether the network and the header are drawn."""
        page.link.seen = page.frames_sent
        before = network.numbers.data, header.source.data
        clock.now += seconds
        follower.train()
        page.update()
        return network.numbers.data is not before[0], header.source.data is not before[1]

    assert step(1.0) == (True, True)
    assert step(0.1) == (True, False)
    assert step(0.1) == (True, False)
    assert step(0.1) == (True, True)
    page.tab.revision += 1  # an action
    assert step(0.1) == (True, True)


def test_edit_is_sent_before_the_last_frame_is_painted(
    follower: InProcessFollower,
) -> None:
    page, document = Page(follower), Document()
    page.open(document)
    page.link.seen = 0
    follower.train()
    page.update()
    assert page.frames_sent == 1
    follower.request(AddFilters("conv1"), "add", 0)
    follower.deliver()
    page.update()

    assert page.frames_sent == 2
    assert page.components.network.network_layout.data["layers"][0]["filters"] == 9
    page.link.seen = 1  # one of two pending confirmations
    follower.train()
    page.update()
    assert page.frames_sent == 2


def test_an_edit_painted_all_charts_before_the_network(
    follower: InProcessFollower, clock: ManualClock
) -> None:
    """The line that marks an edit paints every chart again."""
    page = Page(follower)
    page.open(Document())
    page.link.seen = 0
    follower.train()
    page.update()
    marks = page.components.markers.source
    follower.request(AddFilters("conv1"), "add", 0)
    follower.deliver()
    page.update()
    assert page.components.network.network_layout.data["layers"][0]["filters"] == 9
    assert list(marks.data["title"]) == []
    page.link.seen = page.frames_sent
    clock.now += 1.0
    page.update()
    assert len(marks.data["title"]) == 1


def test_a_plan_is_shown_before_the_last_frame_is_painted(follower: InProcessFollower) -> None:
    """Apply stayed disabled for a frame or two after the plan had arrived."""
    page, document = Page(follower), Document()
    page.open(document)
    page.link.seen = 0
    follower.train()
    page.update()
    send(page, "stage_add", {"layer": 0})
    page.update()
    assert page.frames_sent == 1
    follower.deliver()
    page.update()
    assert page.frames_sent == 2
    (staging,) = (part for part in page.components.frame_parts() if part.part == "staging")
    assert staging.data["rows"][0]["plan"] == "planned"


def test_statistics_do_not_wait_for_images(
    follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, document = Page(follower), Document()
    page.open(document)
    page.link.seen = 0
    drawn: list[str] = []
    for component in page.components.images:
        monkeypatch.setattr(component, "update", lambda: drawn.append("image") or True)

    follower.train()
    page.update()
    page._update_secondary()
    assert (page.frames_sent, drawn) == (1, [])  # the statistics are not painted yet

    page.link.seen = 1
    page._update_secondary()
    assert drawn
    drawn.clear()
    send(page, "set_filter_bar_statistic", {"option": "index"})
    assert not drawn
    send(page, "select_largest_gradient_filter", {"layer": 1, "first": 3})
    assert drawn  # the new selection is shown immediately


def test_update_is_scheduled_as_soon_as_permitted(follower: InProcessFollower) -> None:
    page, document = Page(follower), Document()
    page.open(document)

    def pop_scheduled() -> list[str]:
        """Return the names of the callbacks of the next tick, and remove them."""
        callbacks = list(document.session_callbacks)
        for callback in callbacks:
            document.remove_next_tick_callback(callback)
        names = [callback.callback.__qualname__ for callback in callbacks]
        return [name for name in names if name != "Page._send_beat"]  # due on a slow machine

    follower.train()
    page.on_update()
    assert pop_scheduled() == []  # the page is not ready yet
    page.link.seen = 0
    assert pop_scheduled() == ["Page.update"]
    page.update()
    page.on_update()
    assert pop_scheduled() == []  # not painted yet
    page.link.seen = 1
    assert pop_scheduled() == ["Page._update_secondary"]  # nothing else is new
    follower.train()
    page.link.visible = False
    page._next_update_at = 0.0
    page.update()
    assert page.frames_sent == 1  # hidden in the meantime


def test_charts_are_sent_one_at_a_time_if_new(
    follower: InProcessFollower, clock: ManualClock
) -> None:
    page, document = Page(follower), Document()
    page.open(document)
    make_footer(page)
    for component in (*page.components.images, *page.components.footer.charts):
        component.update()
    page.link.seen = 0
    sent: list[Any] = []
    document.on_change(lambda event: sent.append(getattr(event, "model", None)))

    def step(seconds: float) -> bool:
        """Return whether a chart is sent after this time."""
        clock.now += seconds
        sent.clear()
        page._update_secondary()
        return page.link in sent

    assert not step(1.0)  # nothing is new
    follower.train()
    assert step(1.0)
    assert not step(0.01)  # too soon
    assert [step(1.0) for _ in range(4)] == [True, True, True, False]  # each has had its turn


def test_charts_are_made_after_the_first_picture(
    follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To make them took the server longer than all else before the first picture."""
    page, document = Page(follower), Document()
    page.open(document)
    places = {place.name: place for place in page.components.footer.chart_places}
    assert not any(place.children for place in places.values())
    clock = [time.monotonic()]
    monkeypatch.setattr("viewer.tab.page.time.monotonic", lambda: clock[0])
    follower.train()
    for component in page.components.images:
        component.update()
    page._update_secondary()
    assert not page.components.footer.charts  # the page has drawn nothing yet

    page.link.seen = 0
    for n in range(1, 6):
        clock[0] += 1.0
        page._update_secondary()
        assert len(page.components.footer.charts) == min(n, 4)
    assert [chart.root.name for chart in page.components.footer.charts] == [
        name.removesuffix("_place") for name in places
    ]
    (part,) = (one for one in page.components.frame_parts() if one.part == "charts")
    page.update()
    assert part.data["made"] == [chart.name for chart in page.components.footer.charts]
    assert "curves-layers_1" in {one.part for one in page.components.frame_parts()}


def test_a_chart_without_curves_is_not_made() -> None:
    """Bokeh warned in the console that the empty axes have no minimum."""
    page = Page(RunFollower())
    page.open(Document())
    assert not page.components.update_next_chart()
    assert not page.components.footer.charts


# From Bokeh 3.6, which compares columns by ==.
@pytest.mark.filterwarnings("ignore:The truth value of an empty array:DeprecationWarning")
def test_a_network_without_filters_shows_its_loss_and_metrics(follower: InProcessFollower) -> None:
    training, state = follower.training, RunState(follower.state.connection)
    state.receive(replace(training.structure(), layers=[], edges=[]))
    follower.state = state
    page = Page(follower)
    page.open(Document())
    make_footer(page)
    for training.step in range(30):
        snapshot = training.snapshot()
        state.receive(replace(snapshot, values=snapshot.values[:, :0]))
        page.tab.update()
        for component in page.components:
            component.update()
    charts = {chart.name: chart for chart in page.components.footer.charts}
    assert len(charts["loss"].raw_source.data["step"]) == 30
    assert state.latest["gradient"].shape == (0,)


def test_a_page_without_news_is_sent_beats(follower: InProcessFollower, clock: ManualClock) -> None:
    """Otherwise it could not distinguish a server that hangs from a training that pauses."""
    page, document = Page(follower), Document()
    page.open(document)
    page.link.seen = 0

    def beats_after(seconds: float) -> int:
        clock.now += seconds
        page.on_update()
        for callback in list(document.session_callbacks):
            document.remove_next_tick_callback(callback)
            if callback.callback.__qualname__ == "Page._send_beat":
                callback.callback()
        return page.link.beat

    assert beats_after(BEAT_SECONDS / 2) == 0
    assert beats_after(BEAT_SECONDS) == 1
    assert beats_after(BEAT_SECONDS / 2) == 1
    page._send()  # a frame says as much
    assert beats_after(BEAT_SECONDS / 2) == 1
    page.link.visible = False
    assert beats_after(60.0) == 1
