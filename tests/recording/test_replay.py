"""A recording that looks like a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from revacnn_lightning import ControlRun, LayerDetail
from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages
from revacnn_lightning.protocol.messages import Message, Refused, Snapshot
from revacnn_lightning.protocol.requests import InspectLayer
from revacnn_lightning.recording import replay as module
from revacnn_lightning.recording.packed_message import PackedMessage
from revacnn_lightning.recording.replay import ReplayedMessages, replay_connection
from tests.recording.messages import (
    SECOND,
    packed,
    run_messages,
    snapshot,
    status,
    steps,
    structure,
    write,
)

Open = Callable[..., ReplayedMessages]


@pytest.fixture
def replay() -> Iterator[Open]:
    opened: list[ReplayedMessages] = []

    def open_(path: Path, speed: float | None = None) -> ReplayedMessages:
        opened.append(ReplayedMessages(replay_connection(path), path, speed))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def poll_all(played: ReplayedMessages) -> list[Message]:
    messages: list[Message] = []
    while new := played.poll():
        messages += new
    return messages


def test_a_recording_is_a_run_that_sends_all_its_messages(tmp_path: Path, replay: Open):
    end = [packed(status(700, "finished"), 700 * SECOND)]
    played = replay(write(tmp_path / "run.mcap", run_messages(700) + end))
    assert (played.connection.run, played.connection.model) == ("run-1", "Net")
    assert played.connection.name == "run"
    assert "reading the recording run.mcap: 0%" in played.describe()
    messages = poll_all(played)
    assert steps(messages) == list(range(700))
    assert played.structure == structure()
    assert played.snapshot is not None
    assert played.snapshot.step == 699
    assert played.describe() == "recording run.mcap"


def test_how_the_run_has_ended_is_shown(tmp_path: Path, replay: Open):
    unfinished = replay(write(tmp_path / "a.mcap", run_messages(5)))
    poll_all(unfinished)
    assert unfinished.describe() == "recording a.mcap, which ends before the run"
    failed = replay(write(tmp_path / "b.mcap", [*run_messages(5), packed(status(5, "failed"))]))
    poll_all(failed)
    assert failed.describe() == "recording b.mcap of a run that failed"


def test_every_request_is_refused(tmp_path: Path, replay: Open):
    played = replay(write(tmp_path / "run.mcap", run_messages(3)))
    id_ = played.request(ControlRun("pause"))
    [refused] = [one for one in poll_all(played) if isinstance(one, Refused)]
    assert (refused.id, refused.reason) == (id_, module.IS_RECORDING)


def test_the_last_recorded_detail_of_a_layer_is_shown_once_per_request(
    tmp_path: Path, replay: Open
):
    details = [packed(layer_detail(step), step * SECOND) for step in range(3)]
    played = replay(write(tmp_path / "run.mcap", run_messages(3) + details))
    poll_all(played)
    played.request(InspectLayer("conv0"))
    played.request(InspectLayer("conv0"))
    [shown] = poll_all(played)
    assert isinstance(shown, LayerDetail)
    assert shown.step == 2
    played.request(InspectLayer("conv1"))
    [refused] = poll_all(played)
    assert isinstance(refused, Refused)
    assert "no such details of conv1" in refused.reason


def layer_detail(step: int) -> LayerDetail:
    empty = np.zeros((2, 0), np.float16)
    view = FilterFeaturesAndImages(empty, empty)
    return LayerDetail("run-1", 0, step, "conv0", view, view, view, view, empty)


def test_a_long_recording_is_thinned_out_but_not_around_its_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replay: Open
):
    monkeypatch.setattr(module, "MAX_CHUNKS", 50)
    monkeypatch.setattr(module, "MAX_BATCHES", 250)
    messages = run_messages(5000)
    edited = packed(structure(1, (3, 3), step=2500), 2500 * SECOND)
    after = [packed(snapshot(i, version=1, filters=6), i * SECOND) for i in range(2500, 5000)]
    path = write(tmp_path / "run.mcap", [*messages[:2502], edited, *after], chunk=10)
    shown = steps(poll_all(replay(path)))
    assert 200 < len(shown) < 300
    assert max(b - a for a, b in itertools.pairwise(shown)) <= 200  # evenly
    assert set(range(2500, 2507)) <= set(shown)  # the chunk of the edit
    assert shown[-1] == 4999


def test_a_recording_can_be_played_at_its_own_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replay: Open
):
    now = [100.0]
    path = write(tmp_path / "run.mcap", run_messages(20))
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    played = replay(path, speed=2.0)
    shown = []
    for _ in range(3):
        shown.append(steps(played.poll()))
        now[0] += 2
    assert shown == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert "playing the recording" in played.describe()


def test_an_empty_recording_is_a_run_without_batches(tmp_path: Path, replay: Open):
    played = replay(write(tmp_path / "run.mcap", []))
    assert poll_all(played) == []
    assert played.describe() == "recording run.mcap, which ends before the run"


def test_a_message_of_a_later_version_is_ignored(tmp_path: Path, replay: Open):
    path = write(tmp_path / "run.mcap", [*run_messages(2), PackedMessage("status", 3, b"\xc1")])
    assert [type(one) for one in poll_all(replay(path))][-1] is Snapshot
