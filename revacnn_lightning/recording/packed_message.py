"""Messages as they are stored in a recording: the frames of the wire protocol in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.encoding import DECODING_ERRORS, decode
from revacnn_lightning.protocol.messages import Message

__all__ = ["PackedMessage", "pack_frames", "unpack_message"]


class PackedMessage(NamedTuple):
    """A message that is independent of the arrays it was made of.

    Attributes:
        topic: the topic of the message.
        time: Unix time of publishing, nanoseconds.
        data: a msgpack array of the frames ``[topic, header, buffer...]``.
    """

    topic: str
    time: int
    data: bytes


def pack_frames(frames: Sequence[Any], time: int) -> PackedMessage:
    """Return a copy of the frames of a message; see `encoding.encode`."""
    topic, header, *buffers = frames
    parts = [topic, header, *(_as_bytes(buffer) for buffer in buffers)]
    return PackedMessage(topic.decode(), time, msgspec.msgpack.encode(parts))


def unpack_message(data: bytes) -> Message | None:
    """Return the message in the data; None if this version does not know its topic.

    Raises:
        ProtocolError: the data is malformed.
    """
    try:
        frames = msgspec.msgpack.decode(data, type=list[bytes])
    except DECODING_ERRORS as error:
        raise ProtocolError(f"malformed message in a recording: {error}") from error
    return decode(frames)


def _as_bytes(buffer: Any) -> memoryview:
    if isinstance(buffer, np.ndarray):
        return buffer.reshape(-1).view(np.uint8).data
    return memoryview(buffer)
