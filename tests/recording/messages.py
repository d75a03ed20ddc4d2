"""Messages of a small simulated run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from revacnn_lightning.protocol.encoding import encode
from revacnn_lightning.protocol.messages import LayerInfo, Message, Snapshot, Status, Structure
from revacnn_lightning.recording.packed_message import PackedMessage, pack_frames
from revacnn_lightning.recording.recording_file import RecordingFile, create_unique_file
from revacnn_lightning.recording.recording_reader import RecordingReader

RUN = "run-1"
SECOND = 1_000_000_000  # in nanoseconds
STATISTICS = ["gradient", "activation", "update_ratio"]


def structure(version: int = 0, widths: Sequence[int] = (2, 3), step: int = 0) -> Structure:
    """Two layers; their filters keep the first ids."""
    layers = [
        LayerInfo(f"conv{i}", "Conv2d", 1, width, (3, 3), (1, 1), 1, list(range(width)))
        for i, width in enumerate(widths)
    ]
    return Structure(RUN, version, step, "Net", layers, [(0, 1)], 100)


def snapshot(step: int, loss: float | None = 0.5, version: int = 0, filters: int = 5) -> Snapshot:
    """A batch whose statistics are its step, plus a tenth per row."""
    values = np.full((len(STATISTICS), filters), float(step), np.float32)
    values += np.arange(len(STATISTICS), dtype=np.float32)[:, None] / 10
    return Snapshot(
        RUN, version, step, step // 10, step % 10, 10, 3, 1000.0 + step, loss, [0.1], 20.0,
        STATISTICS, values, {"val_loss": 0.25},
    )  # fmt: skip


def status(step: int = 0, state: str = "training") -> Status:
    return Status(RUN, state, step, 0, 1000.0 + step)  # type: ignore[arg-type]


def packed(message: Message, time: int = 0) -> PackedMessage:
    return pack_frames(encode(message), time)


def run_messages(batches: int) -> list[PackedMessage]:
    """A run of one batch per second."""
    messages = [packed(structure()), packed(status())]
    return messages + [packed(snapshot(step), step * SECOND) for step in range(batches)]


def write(path: Path, messages: Sequence[PackedMessage], chunk: int = 10_000) -> Path:
    """Write a finished recording with so many messages in each chunk."""
    _, stream = create_unique_file(path)
    file = RecordingFile(stream, {"run": RUN, "model": "Net", "name": "", "start_time": "1000"})
    for number, message in enumerate(messages, 1):
        file.write(message)
        if number % chunk == 0:
            file.flush()
    file.finish({})
    return path


def read(path: Path) -> list[Message]:
    with RecordingReader(path) as reader:
        return [message for _, message in reader.messages()]


def steps(messages: Sequence[Message]) -> list[int]:
    return [message.step for message in messages if isinstance(message, Snapshot)]
