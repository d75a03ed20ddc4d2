"""What is recorded of a run, and when."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from revacnn_lightning import EditRefusedError
from revacnn_lightning.protocol.encoding import encode
from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.recording import run_recordings
from revacnn_lightning.recording.recording_reader import RecordingReader
from revacnn_lightning.recording.run_recordings import RecordingSettings, RunRecordings
from tests.recording.messages import read, snapshot, status, steps, structure


def recordings(directory: Path, file: Path | None = None, keep_batches: int = 0) -> RunRecordings:
    settings = RecordingSettings(directory, file, keep_batches)
    return RunRecordings(settings, {"run": "run-1"}, lambda: [structure(), status()])


def receive(recorded: RunRecordings, *messages: Message) -> None:
    for message in messages:
        recorded.receive(message, encode(message))


def test_nothing_is_recorded_unless_somebody_asks_for_it(tmp_path: Path):
    recorded = recordings(tmp_path)
    recorded.start_configured()
    assert not recorded.needs_batch(0)
    receive(recorded, snapshot(0, math.nan))
    recorded.close("failed", "ValueError")
    assert list(tmp_path.iterdir()) == []


def test_a_recording_from_the_start_holds_everything(tmp_path: Path):
    recorded = recordings(tmp_path, tmp_path / "run.mcap")
    recorded.start_configured()
    assert recorded.needs_batch(0)
    assert recorded.file_name == "run.mcap"
    receive(recorded, *[snapshot(step) for step in range(5)])
    recorded.close("finished", "")
    assert steps(read(tmp_path / "run.mcap")) == [0, 1, 2, 3, 4]


def test_a_recording_is_started_and_ended_on_request(tmp_path: Path):
    recorded, changes = recordings(tmp_path / "new"), []
    recorded.on_change = lambda: changes.append(recorded.file_name)
    receive(recorded, snapshot(7))
    assert recorded.start() == f"Recording to {tmp_path}/new/run-1-batch-7.mcap"
    with pytest.raises(EditRefusedError, match="stop that recording first"):
        recorded.start("other")
    receive(recorded, snapshot(8))
    assert recorded.stop().startswith("Recorded ")
    assert not recorded.needs_batch(0)
    receive(recorded, snapshot(9))
    with pytest.raises(EditRefusedError, match="not being recorded"):
        recorded.stop()
    recorded.close("finished", "")
    messages = read(tmp_path / "new" / "run-1-batch-7.mcap")
    assert messages[0] == structure()  # what the batches belong to
    assert steps(messages) == [8]
    assert changes == ["run-1-batch-7.mcap", ""]


@pytest.mark.parametrize("file", ["../run.mcap", "/tmp/run.mcap", "a/b", "..", ".hidden", "a\nb"])
def test_a_client_cannot_write_outside_of_the_directory(tmp_path: Path, file: str):
    recorded = recordings(tmp_path / "inside")
    with pytest.raises(EditRefusedError, match="plain name of a file"):
        recorded.start(file)
    assert list(tmp_path.iterdir()) == []


def test_a_client_overwrites_nothing(tmp_path: Path):
    (tmp_path / "a.mcap").write_text("precious")
    recorded = recordings(tmp_path)
    recorded.start("a.mcap")
    assert recorded.file_name == "a-v1.mcap"
    recorded.close("finished", "")
    assert (tmp_path / "a.mcap").read_text() == "precious"


def test_a_file_that_cannot_be_created_is_logged_and_costs_the_recording_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("")
    recorded = recordings(tmp_path / "file", tmp_path / "file" / "run.mcap")
    recorded.start_configured()
    assert "Training continues" in caplog.text
    assert not recorded.needs_batch(0)
    with pytest.raises(EditRefusedError, match="cannot record"):
        recorded.start()


def test_the_recording_ends_when_its_disk_fails(tmp_path: Path):
    recorded, changes = recordings(tmp_path, tmp_path / "run.mcap"), []
    recorded.start_configured()
    recorded.on_change = lambda: changes.append(recorded.file_name)
    assert recorded._writer is not None
    recorded._writer.failure = "OSError: No space left on device"
    receive(recorded, snapshot(1))
    assert changes == [""]
    assert not recorded.needs_batch(0)
    recorded.close("finished", "")


def test_the_last_batches_are_written_when_the_loss_is_not_finite(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    recorded = recordings(tmp_path, keep_batches=10)
    receive(recorded, structure(), *[snapshot(step) for step in range(50)])
    receive(recorded, *[snapshot(step, math.nan) for step in range(50, 60)])
    recorded.close("finished", "")
    [path] = tmp_path.iterdir()  # once, not for each batch
    assert path.name == "run-1-nonfinite-loss-batch-50.mcap"
    assert path.name in caplog.text
    messages = read(path)
    assert messages[0] == structure()
    assert steps(messages) == list(range(41, 51))
    with RecordingReader(path) as reader:
        assert reader.about["reason"] == "the loss is nan"


def test_a_loss_that_becomes_nan_again_and_again_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_recordings, "MAX_RING_FILES", 2)
    recorded = recordings(tmp_path, keep_batches=2)
    for step in range(0, 20, 2):
        receive(recorded, snapshot(step), snapshot(step + 1, math.inf))
    recorded.close("finished", "")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_last_batches_are_written_when_the_run_fails(tmp_path: Path):
    recorded = recordings(tmp_path, keep_batches=3)
    receive(recorded, structure(), *[snapshot(step) for step in range(9)])
    receive(recorded, status(9, "failed"))
    recorded.close("failed", "ValueError: no more data")
    [path] = tmp_path.iterdir()
    assert path.name == "run-1-exception-batch-8.mcap"
    messages = read(path)
    assert steps(messages) == [6, 7, 8]
    assert messages[-1] == status(9, "failed")
