"""Recordings in the viewer: the same page as that of a run, without its controls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from revacnn_lightning.protocol.messages import Message, Request
from revacnn_lightning.protocol.requests import RemoveFilters
from tests.recording.messages import packed, write
from tests.viewer.fake_training import FakeTraining
from viewer.components.controls import ControlsPanel
from viewer.components.header import Header
from viewer.runs.recordings import Recordings
from viewer.runs.registry import RunRegistry
from viewer.tab.commands import perform_command
from viewer.tab.page_link import PageCommand, PageLink
from viewer.tab.tab_state import TabState

SECOND = 1_000_000_000


@pytest.fixture
def training() -> FakeTraining:
    return FakeTraining("digits")


@pytest.fixture
def recording(training: FakeTraining, tmp_path: Path) -> Path:
    """A run of 400 batches, with an edit before batch 200."""
    messages: list[Message] = [training.structure(), training.status()]
    for step in range(400):
        if step == 200:
            layer = training.structure().layers[0].name
            messages += reversed(training.handle(Request("edit", RemoveFilters(layer, [1]), 0)))
        messages.append(training.snapshot())
        training.step += 1
    messages.append(training.status("finished"))
    return write(tmp_path / "run.mcap", [packed(one, i * SECOND) for i, one in enumerate(messages)])


def tab_of(registry: RunRegistry) -> TabState:
    tab = TabState(registry.placeholder, PageLink(name="link"), registry=registry)
    registry.tick()
    tab.update()
    for _ in range(100):
        registry.tick()
        tab.update()
        status = None if tab.state is None else tab.state.status
        if status is not None and status.state == "finished":
            break
    return tab


def test_a_recording_is_shown_like_a_run_that_has_ended(
    recording: Path, training: FakeTraining
) -> None:
    registry = RunRegistry(recordings=Recordings([recording]))
    tab = tab_of(registry)
    state = tab.state
    assert state is not None
    assert state.structure is not None
    assert state.structure.layers == training.structure().layers
    assert state.snapshot is not None
    assert state.snapshot.step == 399
    moments = state.histories.moments()
    assert (moments[0], moments[-1]) == (0, 399)
    assert np.isfinite(state.histories.filters.rows[:, : state.n_filters - 1]).any()
    [mark] = state.requests.edit_marks
    assert (mark.step, mark.title) == (200, state.requests.edit_marks[0].title)
    assert mark.title
    run_status = tab.follower.run_status()
    assert (run_status.kind, run_status.text) == ("recording", "recording run.mcap")
    assert run_status.has_ended
    registry.close()


def test_the_slider_goes_back_in_a_recording(recording: Path) -> None:
    registry = RunRegistry(recordings=Recordings([recording]))
    tab = tab_of(registry)
    perform_command(tab, PageCommand("show_moment", {"row": 10}))
    assert tab.playback.shown_step is not None
    assert tab.playback.shown_step < 20
    assert len(tab.values()["gradient"])
    registry.close()


def test_the_controls_are_off_and_say_why(recording: Path) -> None:
    registry = RunRegistry(recordings=Recordings([recording]))
    tab = tab_of(registry)
    assert not ControlsPanel(tab).content()["available"]
    perform_command(tab, PageCommand("control_run", {"action": "pause"}))
    assert tab.edit_queue.error == "This is a recording: it cannot be edited or controlled."
    assert "recording run.mcap" in Header(tab).content()["end_notice"]
    registry.close()


def test_two_recordings_of_a_run_are_two_runs(recording: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mcap"
    copy.write_bytes(recording.read_bytes())
    recordings = Recordings([recording, copy])
    assert len({one.run for one in recordings.connections}) == 2
    registry = RunRegistry(recordings=recordings)
    registry.tick()
    assert len(registry.known_runs()) == 2
    registry.close()


def test_a_file_that_is_no_recording_is_a_problem_that_the_page_shows(tmp_path: Path) -> None:
    registry = RunRegistry(recordings=Recordings([tmp_path / "missing.mcap"]))
    registry.tick()
    assert "cannot read the recording" in registry.problem
    assert registry.find_follower() is None
    registry.close()
