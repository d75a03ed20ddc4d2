"""What is recorded of one run: the file that is being written, and the last batches."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revacnn_lightning.errors import EditRefusedError, MissingPackageError
from revacnn_lightning.protocol.encoding import encode
from revacnn_lightning.protocol.messages import Message, Snapshot
from revacnn_lightning.recording.batch_ring import BatchRing
from revacnn_lightning.recording.packed_message import pack_frames
from revacnn_lightning.recording.recording_file import is_file_name
from revacnn_lightning.recording.recording_writer import RecordingWriter

__all__ = ["RecordingSettings", "RunRecordings", "recording_metadata"]

log = logging.getLogger(__name__)

SUFFIX = ".mcap"
MAX_RING_FILES = 8  # of a run: a loss may become NaN again and again


@dataclass(frozen=True)
class RecordingSettings:
    """Which recordings a training starts by itself, and where recordings are written.

    Attributes:
        directory: the folder of recordings that clients start, and of the last batches.
        file: the file to record to from the start; None records nothing.
        keep_batches: number of batches that are written when something goes wrong.
    """

    directory: Path
    file: Path | None = None
    keep_batches: int = 0


class RunRecordings:
    """Records the messages of a run.

    Args:
        settings: what is recorded.
        metadata: describes the run, for the metadata of the files.
        get_state: returns the messages that describe the run as it is now.

    Attributes:
        on_change: called when a recording has started or ended.
    """

    def __init__(
        self,
        settings: RecordingSettings,
        metadata: dict[str, str],
        get_state: Callable[[], Sequence[Message]],
    ) -> None:
        self.on_change: Callable[[], None] = _do_nothing
        self._settings = settings
        self._about = metadata
        self._get_state = get_state
        self._writer: RecordingWriter | None = None
        self._finishing: list[RecordingWriter] = []  # which complete their files
        self._ring = BatchRing(settings.keep_batches) if settings.keep_batches else None
        self._n_ring_files = 0
        self._finite_batches = 0  # since the loss was not finite
        self._step = 0

    # ------------------------------------------------------------------ the file

    @property
    def file_name(self) -> str:
        """Name of the file that is being written; "" if there is none."""
        return "" if self._writer is None else self._writer.path.name

    def start_configured(self) -> None:
        """Start the recording that the training has asked for, if any."""
        if self._settings.file is None:
            return
        try:
            self._start(self._settings.file)
        except OSError as error:
            log.warning("Cannot record to %s: %s. Training continues", self._settings.file, error)

    def start(self, file: str = "") -> str:
        """Start a recording in the directory of the training; return what was done, in words.

        Args:
            file: name of the file, without a folder; "" for a new name.

        Raises:
            EditRefusedError: there is a recording already, or the file cannot be created.
            MissingPackageError: the package mcap is not installed.
        """
        if self._writer is not None:
            raise EditRefusedError(
                f"this run is being recorded to {self._writer.path}; stop that recording first"
            )
        name = file or f"{self._about.get('run', 'run')}-batch-{self._step}"
        if not is_file_name(name):
            raise EditRefusedError(
                f"{file!r} is not the plain name of a file; use letters, digits, '-', '_' and '.', "
                "without a folder: the training has chosen the folder"
            )
        name = name if name.endswith(SUFFIX) else name + SUFFIX
        try:
            path = self._start(self._settings.directory / name)
        except OSError as error:
            raise EditRefusedError(f"cannot record to {name}: {error}") from error
        except MissingPackageError as error:  # the client may be on another machine
            raise MissingPackageError(f"{error} in the environment of the training") from error
        self.on_change()
        return f"Recording to {path}"

    def stop(self) -> str:
        """End the recording; return what was done, in words. The file is completed soon after.

        Raises:
            EditRefusedError: there is no recording.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            raise EditRefusedError("this run is not being recorded")
        writer.finish()
        self._finishing = [one for one in self._finishing if not one.is_finished] + [writer]
        self.on_change()
        log.info("Recorded %s", writer.path)
        return f"Recorded {writer.path}"

    def _start(self, path: Path) -> Path:
        self._writer = RecordingWriter(path, self._about)
        for message in self._get_state():
            self._writer.add(pack_frames(encode(message), time.time_ns()))
        log.info("Recording to %s", self._writer.path)
        return self._writer.path

    # ------------------------------------------------------------------ messages

    def needs_batch(self, step: int) -> bool:
        """Return whether the batch is to be recorded, which does not depend on the batch."""
        return self._writer is not None or self._ring is not None

    def receive(self, message: Message, frames: Sequence[Any]) -> None:
        """Record a message. It returns before the message is on the disk."""
        if self._writer is not None and self._writer.failure:
            self._writer = None
            self.on_change()
        if isinstance(message, Snapshot):
            self._step = message.step
        if self._writer is None and self._ring is None:
            return
        packed = pack_frames(frames, time.time_ns())
        if self._writer is not None:
            self._writer.add(packed)
        if self._ring is not None:
            self._ring.add(packed)
            if isinstance(message, Snapshot) and message.loss is not None:
                self._check_loss(self._ring, message.loss)

    def close(self, state: str, detail: str) -> None:
        """Complete all files. Write the last batches if the run has failed."""
        if state == "failed" and self._ring is not None:
            self._write_ring(self._ring, "exception", detail)
        if self._writer is not None:
            self.stop()
        for writer in self._finishing:
            writer.wait()
        self._finishing.clear()

    # ------------------------------------------------------------------ the last batches

    def _check_loss(self, ring: BatchRing, loss: float) -> None:
        """Write the last batches when the loss ceases to be finite."""
        if math.isfinite(loss):
            self._finite_batches += 1
            return
        if self._finite_batches or not self._n_ring_files:
            self._write_ring(ring, "nonfinite-loss", f"the loss is {loss}")
        self._finite_batches = 0

    def _write_ring(self, ring: BatchRing, kind: str, reason: str) -> None:
        if self._n_ring_files >= MAX_RING_FILES or not ring.n_batches:
            return
        self._n_ring_files += 1
        name = f"{self._about.get('run', 'run')}-{kind}-batch-{self._step}{SUFFIX}"
        try:
            writer = RecordingWriter(
                self._settings.directory / name, {**self._about, "reason": reason}
            )
        except (OSError, MissingPackageError) as error:
            log.warning("Cannot write the last batches to %s: %s", name, error)
            return
        for message in ring.messages():
            writer.add(message)
        writer.finish()
        self._finishing.append(writer)
        log.warning("Wrote the last %d batches to %s: %s", ring.n_batches, writer.path, reason)


def recording_metadata(run: str, model: str, name: str) -> dict[str, str]:
    """Return the metadata of a recording of this run."""
    return {"run": run, "model": model, "name": name, "start_time": str(time.time())}


def _do_nothing() -> None:
    pass
