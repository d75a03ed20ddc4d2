"""Writes a recording in a thread of its own, which never delays the training."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from revacnn_lightning.recording.packed_message import PackedMessage
from revacnn_lightning.recording.recording_file import (
    RecordingFile,
    create_unique_file,
    require_mcap,
)

__all__ = ["RecordingWriter"]

log = logging.getLogger(__name__)

MAX_QUEUED_BYTES = 64 * 2**20
WAKE_BYTES = 4 * 2**20  # queued messages that are written before `WRITE_SECONDS` are over
WRITE_SECONDS = 0.5
FLUSH_SECONDS = 2.0  # a killed training loses at most what it has published in this time
CLOSE_SECONDS = 30.0
DISPENSABLE = "snapshot"  # the topic of the messages that are dropped if the disk is too slow

CreateFile = Callable[[Path], tuple[Path, IO[bytes]]]


class RecordingWriter:
    """Writes messages to a new recording.

    If the disk is too slow, batches are left out; if it fails, the recording ends. Both are logged.

    Args:
        path: the path of the file; if it exists, the new file gets a number at the end of its name.
        metadata: describes the run, for the metadata of the file.
        create: creates the file.

    Attributes:
        path: the path of the file.
        dropped: number of batches that were left out because the disk was too slow.
        failure: why the recording has ended by itself; "" while it has not.

    Raises:
        MissingPackageError: the package mcap is not installed.
        OSError: the file cannot be created.
    """

    def __init__(
        self, path: Path, metadata: dict[str, str], create: CreateFile = create_unique_file
    ) -> None:
        require_mcap()
        self.path, stream = create(path)
        self.dropped = 0
        self.failure = ""
        self._file = RecordingFile(stream, metadata)
        self._queue: list[PackedMessage] = []
        self._queued_bytes = 0
        self._is_closing = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revacnn-recording", daemon=True)
        self._thread.start()

    def add(self, message: PackedMessage) -> None:
        """Queue a message. Returns immediately."""
        if self.failure:
            return
        with self._lock:
            is_full = self._queued_bytes + len(message.data) > MAX_QUEUED_BYTES
            if is_full and message.topic == DISPENSABLE:
                self.dropped += 1
                if self.dropped == 1:
                    log.warning(
                        "The disk is too slow for the recording %s: batches are missing in it",
                        self.path,
                    )
                return
            self._queue.append(message)
            self._queued_bytes += len(message.data)
            is_much = self._queued_bytes > WAKE_BYTES
        if is_much:
            self._wake.set()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is written any more."""
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Write what is queued, and complete the file. Returns immediately."""
        self._is_closing = True
        self._wake.set()

    def wait(self) -> None:
        """Wait until the file is complete, after `finish`."""
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning(
                "The recording %s is not complete after %.0f s: the disk does not respond; what "
                "was written before can be read",
                self.path,
                CLOSE_SECONDS,
            )

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            self._write_until_closed()
        except Exception as error:  # noqa: BLE001 - the disk, or a bug: training continues
            self.failure = f"{type(error).__name__}: {error}"
            self._take_queue()
            self._file.close_without_index()
            log.warning(
                "The recording %s has ended: %s. Training continues; what was written before can "
                "be read",
                self.path,
                self.failure,
            )

    def _write_until_closed(self) -> None:
        flushed_at = time.monotonic()
        while True:
            self._wake.wait(WRITE_SECONDS)
            self._wake.clear()
            is_closing = self._is_closing  # before the queue is taken, so that nothing is missed
            for message in self._take_queue():
                self._file.write(message)
            if is_closing:
                self._file.finish({"dropped_batches": str(self.dropped)})
                return
            if time.monotonic() - flushed_at >= FLUSH_SECONDS:
                self._file.flush()
                flushed_at = time.monotonic()

    def _take_queue(self) -> list[PackedMessage]:
        with self._lock:
            taken, self._queue = self._queue, []
            self._queued_bytes = 0
        return taken
