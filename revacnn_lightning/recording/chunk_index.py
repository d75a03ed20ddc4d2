"""Where the chunks of a recording are, also of one that was never finished."""

from __future__ import annotations

import struct
from collections import Counter
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mcap.data_stream import ReadDataStream
    from mcap.records import McapRecord

__all__ = ["Chunk", "ChunkIndex", "find_chunks", "read_chunk"]

RECORD = struct.Struct("<BQ")  # opcode, length
CHUNK_TIMES = struct.Struct("<QQ")  # of the first and the last message
INDEX_HEAD, INDEX_ENTRY = 6, 16  # bytes of a message index
MAX_CHUNK_BYTES = 2**29  # a message has at most 272 MB
MAX_METADATA_BYTES = 2**20


class Chunk(NamedTuple):
    """A part of a recording: its position, the times of its messages and their topics.

    Attributes:
        offset: the offset of its record in the file.
        start, end: Unix time of the first and the last message, nanoseconds.
        topics: the topics of its messages.
    """

    offset: int
    start: int
    end: int
    topics: frozenset[str]


class ChunkIndex(NamedTuple):
    """All chunks of a file.

    Attributes:
        chunks: the chunks, in the order of the file.
        counts: number of messages of each topic.
        metadata: the metadata of the file.
        is_finished: whether the file was completed.
    """

    chunks: list[Chunk]
    counts: Counter[str]
    metadata: dict[str, str]
    is_finished: bool


def find_chunks(stream: IO[bytes]) -> ChunkIndex:
    """Return the chunks of a file: from its index, or else by skipping from record to record.

    Raises:
        McapError: the file is no MCAP file.
    """
    from mcap.exceptions import McapError
    from mcap.stream_reader import read_magic

    stream.seek(0)
    read_magic(_data_stream(stream))
    try:
        return _read_index(stream)
    except (McapError, ValueError, struct.error, LookupError):
        return _scan(stream)


def read_chunk(stream: IO[bytes], offset: int) -> list[McapRecord]:
    """Return the channels and messages of the chunk at this offset.

    Raises:
        ValueError: the chunk is damaged or too large.
    """
    from mcap.records import Chunk as ChunkRecord
    from mcap.stream_reader import breakup_chunk

    stream.seek(offset)
    _, length = RECORD.unpack(stream.read(RECORD.size))
    if length > MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk of {length:,} bytes")
    chunk = ChunkRecord.read(_data_stream(stream))
    if chunk.uncompressed_size > MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk of {chunk.uncompressed_size:,} bytes")
    return breakup_chunk(chunk, validate_crc=True)


def _data_stream(stream: IO[bytes]) -> ReadDataStream:
    from mcap.data_stream import ReadDataStream

    return ReadDataStream(stream)


# ---------------------------------------------------------------------- a finished file


def _read_index(stream: IO[bytes]) -> ChunkIndex:
    from mcap.reader import SeekingReader

    stream.seek(0)
    reader = SeekingReader(stream)
    summary = reader.get_summary()
    if summary is None or summary.statistics is None:
        raise ValueError("there is no index")
    topics = {id_: channel.topic for id_, channel in summary.channels.items()}
    chunks = [
        Chunk(
            one.chunk_start_offset,
            one.message_start_time,
            one.message_end_time,
            frozenset(topics[id_] for id_ in one.message_index_offsets),
        )
        for one in summary.chunk_indexes
    ]
    counts: Counter[str] = Counter()
    for id_, count in summary.statistics.channel_message_counts.items():
        counts[topics[id_]] += count
    metadata: dict[str, str] = {}
    for record in reader.iter_metadata():
        metadata.update(record.metadata)
    return ChunkIndex(sorted(chunks), counts, metadata, True)


# ---------------------------------------------------------------------- an unfinished file


def _scan(stream: IO[bytes]) -> ChunkIndex:
    """Return the chunks up to the last complete one. What follows it was being written."""
    from mcap.opcode import Opcode
    from mcap.stream_reader import MAGIC_SIZE

    size = stream.seek(0, 2)
    scan = _Scan(stream)
    offset = MAGIC_SIZE
    while offset + RECORD.size <= size:
        stream.seek(offset)
        opcode, length = RECORD.unpack(stream.read(RECORD.size))
        end = offset + RECORD.size + length
        if end > size or opcode == Opcode.DATA_END:
            break
        if opcode == Opcode.CHUNK:
            scan.add_chunk(offset)
        elif opcode == Opcode.MESSAGE_INDEX:
            scan.add_messages(length)
        elif opcode == Opcode.METADATA and length <= MAX_METADATA_BYTES:
            scan.add_metadata()
        offset = end
    return scan.result()


class _Scan:
    """What is known of a file so far. The stream is after the head of the record to be added."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._topics: dict[int, str] = {}  # by channel
        self._chunks: list[Chunk] = []
        self._counts: Counter[str] = Counter()
        self._metadata: dict[str, str] = {}

    def add_chunk(self, offset: int) -> None:
        start, end = CHUNK_TIMES.unpack(self._stream.read(CHUNK_TIMES.size))
        self._chunks.append(Chunk(offset, start, end, frozenset()))
        if not self._topics:  # all channels are in the first chunk
            from mcap.records import Channel

            for record in read_chunk(self._stream, offset):
                if isinstance(record, Channel):
                    self._topics[record.id] = record.topic

    def add_messages(self, length: int) -> None:
        """Add the messages of one channel in the last chunk."""
        channel = int.from_bytes(self._stream.read(2), "little")
        topic = self._topics.get(channel)
        if topic is not None and self._chunks:
            last = self._chunks[-1]
            self._chunks[-1] = last._replace(topics=last.topics | {topic})
            self._counts[topic] += max(0, length - INDEX_HEAD) // INDEX_ENTRY

    def add_metadata(self) -> None:
        from mcap.records import Metadata

        self._metadata.update(Metadata.read(_data_stream(self._stream)).metadata)

    def result(self) -> ChunkIndex:
        """Return the index, without a last chunk whose messages are not indexed yet."""
        chunks = [one for one in self._chunks if one.topics]
        return ChunkIndex(chunks, self._counts, self._metadata, False)
