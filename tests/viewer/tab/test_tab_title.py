"""The title of the browser tab."""

from __future__ import annotations

import pytest
from bokeh.document import Document
from msgspec.structs import replace

from revacnn_lightning.protocol.connection_file import Connection
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.runs.run_follower import RunFollower
from viewer.tab.page import Page
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState
from viewer.tab.tab_title import tab_title


@pytest.fixture
def named(tab: TabState, follower: InProcessFollower) -> TabState:
    follower.connection = Connection("run", "", "", "", model="DigitsNet", name="wide stem")
    return tab


def test_the_title_has_state_metric_epoch_and_name(
    named: TabState, follower: InProcessFollower
) -> None:
    assert tab_title(named) == "● 0.400 · epoch 1 · wide stem"
    follower.kind = "paused"
    assert tab_title(named).startswith("❚❚ 0.400")
    follower.kind = "gone"
    assert tab_title(named).startswith("✗ ")
    follower.kind = "silent"
    assert tab_title(named).startswith("○ ")


def test_the_title_follows_the_metric_of_the_first_chart(named: TabState) -> None:
    state = named.state
    assert state is not None
    assert state.snapshot is not None
    metrics = {"val_acc": 0.5, "val_f1": 0.25, "train_loss": 2.0}
    state.snapshot = replace(state.snapshot, metrics=metrics, loss=2.5)
    for name in metrics:
        state.histories.metrics.setdefault(name, state.histories.scalars)
    assert "0.500" in tab_title(named)
    send_command(named, "set_chart", chart=0, option="f1")
    assert "0.250" in tab_title(named)
    state.snapshot = replace(state.snapshot, metrics={})
    assert "2.50" in tab_title(named)


def test_a_run_without_a_name_or_a_batch_has_a_title(tab: TabState) -> None:
    tab.follower.connection = Connection("run", "", "", "", model="DigitsNet", start_time=0.0)
    assert tab.state is not None
    tab.state.snapshot = None
    assert tab_title(tab).startswith("● DigitsNet · ")
    assert tab_title(TabState(RunFollower(), PageLink())) == "ReVACNN"


def test_the_title_of_a_hidden_tab_follows_its_run(
    follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower.connection = Connection("run", "", "", "", model="DigitsNet", name="wide stem")
    clock = [100.0]
    monkeypatch.setattr("viewer.tab.page.time.monotonic", lambda: clock[0])
    page, document = Page(follower), Document()
    page.open(document)
    page.link.visible = False
    assert "epoch 1 " in document.title
    for callback in document.session_callbacks:
        document.remove_next_tick_callback(callback)
    follower.train(100)
    page.on_update()
    assert not document.session_callbacks  # at most one change in two seconds
    clock[0] += 3.0
    page.on_update()
    (callback,) = document.session_callbacks
    assert callback.callback.__qualname__ == "Page._update_title"
    callback.callback()
    assert "epoch 2 " in document.title
    assert page.frames_sent == 0
