"""The thread that writes: it never delays or stops the training."""

from __future__ import annotations

import errno
import io
import threading
from pathlib import Path
from typing import IO

import pytest

from revacnn_lightning.recording import recording_writer
from revacnn_lightning.recording.recording_writer import RecordingWriter
from tests.recording.messages import packed, read, run_messages, snapshot, steps


class FullDisk(io.BytesIO):
    """A file on a disk that has room for some bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: object) -> int:
        self.room -= len(data)  # type: ignore[arg-type]
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)  # type: ignore[arg-type]


class SlowDisk(io.BytesIO):
    """A file whose disk does not respond until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.is_released = threading.Event()

    def write(self, data: object) -> int:
        if threading.current_thread() is not threading.main_thread():
            assert self.is_released.wait(60)
        return super().write(data)  # type: ignore[arg-type]


def writer_to(stream: IO[bytes], monkeypatch: pytest.MonkeyPatch) -> RecordingWriter:
    monkeypatch.setattr(recording_writer, "WRITE_SECONDS", 0.01)
    monkeypatch.setattr(recording_writer, "FLUSH_SECONDS", 0.01)
    return RecordingWriter(Path("run.mcap"), {}, lambda path: (path, stream))


def test_all_messages_are_written(tmp_path: Path):
    writer = RecordingWriter(tmp_path / "folder" / "run.mcap", {"run": "run-1"})
    for message in run_messages(200):
        writer.add(message)
    writer.finish()
    writer.wait()
    assert writer.is_finished
    assert not writer.failure
    assert steps(read(writer.path)) == list(range(200))


def test_a_full_disk_ends_the_recording_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    writer = writer_to(FullDisk(room=2000), monkeypatch)
    for message in run_messages(500):
        writer.add(message)
    writer._thread.join(60)
    assert "No space left on device" in writer.failure
    assert "Training continues" in caplog.text
    for message in run_messages(10):  # nothing is kept any more
        writer.add(message)
    assert writer._queue == []
    writer.finish()
    writer.wait()


def test_a_slow_disk_costs_batches_and_no_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(recording_writer, "MAX_QUEUED_BYTES", 20_000)
    disk = SlowDisk()
    writer = writer_to(disk, monkeypatch)
    messages = run_messages(1000)
    for message in messages:
        writer.add(message)
    assert writer.dropped > 0
    assert writer._queued_bytes <= 20_000
    assert caplog.text.count("disk is too slow") == 1
    edit = packed(snapshot(5000))._replace(topic="applied")
    writer.add(edit)  # the few other messages are kept
    assert writer._queue[-1] == edit
    disk.is_released.set()
    writer.finish()
    writer.wait()
    assert writer.is_finished
