"""Reads recordings."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from revacnn_lightning.errors import ProtocolError, RecordingError
from revacnn_lightning.protocol.messages import PROTOCOL_VERSION, Message
from revacnn_lightning.recording.chunk_index import Chunk, find_chunks, read_chunk
from revacnn_lightning.recording.packed_message import PackedMessage, unpack_message
from revacnn_lightning.recording.recording_file import require_mcap

__all__ = ["RecordingReader"]

log = logging.getLogger(__name__)


class RecordingReader:
    """Reads a recording, also one that is still being written or was never finished.

    Only one chunk is in memory at a time. A damaged chunk is skipped.

    Attributes:
        path: the path of the file.
        about: metadata: the run, its model, its name, the version of the protocol.
        chunks: the parts of the file, in order.
        counts: number of messages of each topic.
        is_finished: whether the recording was completed.

    Raises:
        MissingPackageError: the package mcap is not installed.
        RecordingError: the file is missing, no recording, or of another version of the protocol.
    """

    def __init__(self, path: str | Path) -> None:
        require_mcap()
        from mcap.exceptions import McapError

        self.path = Path(path).expanduser()
        try:
            self._stream = self.path.open("rb")
        except OSError as error:
            raise RecordingError(f"cannot read the recording {self.path}: {error}") from error
        self._topics: dict[int, str] = {}  # by channel
        try:
            index = find_chunks(self._stream)
        except (McapError, OSError, ValueError) as error:
            self._stream.close()
            raise RecordingError(f"{self.path} is not a recording of ReVACNN: {error}") from error
        self.chunks, self.counts, self.about, self.is_finished = index
        try:
            self._check_protocol()
        except RecordingError:
            self._stream.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> RecordingReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def packed_messages(self, chunk: Chunk) -> list[PackedMessage]:
        """Return the messages of a chunk, in the order in which they were published."""
        from mcap.exceptions import McapError
        from mcap.records import Channel
        from mcap.records import Message as MessageRecord

        found = []
        try:
            if not self._topics and chunk is not self.chunks[0]:
                self.packed_messages(self.chunks[0])  # it holds the channels
            for record in read_chunk(self._stream, chunk.offset):
                if isinstance(record, Channel):
                    self._topics[record.id] = record.topic
                elif isinstance(record, MessageRecord):
                    topic = self._topics.get(record.channel_id, "")
                    found.append(PackedMessage(topic, record.log_time, record.data))
        except _chunk_errors(McapError) as error:
            log.warning("Skipped a damaged part of %s: %s", self.path, error)
        return found

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[int, Message]]:
        """Yield (Unix time in nanoseconds, message) of all messages, or those of some topics."""
        for chunk in self.chunks:
            if topics is not None and not chunk.topics & set(topics):
                continue
            for packed in self.packed_messages(chunk):
                if topics is None or packed.topic in topics:
                    message = self.unpack(packed)
                    if message is not None:
                        yield packed.time, message

    def unpack(self, packed: PackedMessage) -> Message | None:
        """Return the message; None if it is malformed or of an unknown kind."""
        try:
            return unpack_message(packed.data)
        except ProtocolError as error:
            log.warning("Ignored a message of %s: %s", self.path, error)
            return None

    def _check_protocol(self) -> None:
        version = self.about.get("protocol", "")
        if version != str(PROTOCOL_VERSION):
            kind = f"of protocol {version}" if version else "of another program"
            raise RecordingError(
                f"the recording {self.path} is {kind}, this version reads protocol "
                f"{PROTOCOL_VERSION}; install the version of revacnn-lightning that has written it"
            )


def _chunk_errors(mcap_error: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what a damaged chunk may raise: malformed numbers, lengths and compressed data."""
    import struct

    import zstandard

    return (mcap_error, zstandard.ZstdError, struct.error, ValueError, OSError, MemoryError)
