"""Messages as frames: `encode(message) -> frames` and its inverse, `decode(frames) -> message`.

A message is ``[topic, header, buffer...]``: the topic names the struct (and is what a subscriber
filters on), the header is the struct in msgpack, the buffers are raw little-endian arrays (float32;
float16 in details, uint8 for pixels) that the header describes. The format on one page: README.md,
"The wire".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct

from revacnn_lightning.errors import ProtocolError, ProtocolVersionError
from revacnn_lightning.protocol.messages import (
    PROTOCOL_VERSION,
    Applied,
    Done,
    FilterInspection,
    LayerDetail,
    Message,
    Planned,
    Refused,
    Request,
    Snapshot,
    Status,
    Structure,
)

__all__ = ["decode", "encode", "request_id"]

# Bounds of what is accepted from the other side, so that a broken or hostile peer cannot make
# either side allocate without limit. ResNet-152 has 150 convs and 75 thousand filters.
MAX_HEADER_BYTES = 16 * 2**20
MAX_BUFFER_BYTES = 256 * 2**20
MAX_FRAMES = 64

_TYPES: dict[bytes, Any] = {
    b"structure": Structure,
    b"snapshot": Snapshot,
    b"layer_detail": LayerDetail,
    b"filter_inspection": FilterInspection,
    b"status": Status,
    b"request": Request,
    b"planned": Planned,
    b"applied": Applied,
    b"done": Done,
    b"refused": Refused,
}
_TOPICS = {cls: topic for topic, cls in _TYPES.items()}


_DTYPES: dict[str, Literal["f2", "f4", "u1"]] = {"f2": "f2", "u1": "u1"}  # all others as f4


class _Array(Struct, frozen=True):
    """Stands in the header for an array: its shape and type, and which buffer frame holds it."""

    shape: list[int]
    frame: int
    dtype: Literal["f2", "f4", "u1"] = "f4"


def _extract(arrays: list[np.ndarray], value: Any) -> Any:
    """Encoder hook: move an array out of the header into a buffer frame."""
    if isinstance(value, np.ndarray):
        dtype = _DTYPES.get(value.dtype.str[1:], "f4")
        arrays.append(np.ascontiguousarray(value, dtype=f"<{dtype}"))
        return _Array(list(value.shape), len(arrays) - 1, dtype)
    raise NotImplementedError(f"messages hold no {type(value).__name__}")


def _insert(buffers: Sequence[Any], kind: type, value: Any) -> Any:
    """Decoder hook: the array whose description stands in the header."""
    if kind is not np.ndarray:
        raise NotImplementedError(f"messages hold no {kind.__name__}")
    array = msgspec.convert(value, _Array)
    if not 0 <= array.frame < len(buffers):
        raise ValueError(f"buffer {array.frame} is missing")
    if any(n < 0 for n in array.shape):
        raise ValueError(f"negative size in shape {array.shape}")
    buffer = memoryview(buffers[array.frame])
    dtype = np.dtype(f"<{array.dtype}")
    if dtype.itemsize * math.prod(array.shape) != buffer.nbytes:
        raise ValueError(f"shape {array.shape} does not fit a buffer of {buffer.nbytes} bytes")
    return np.frombuffer(buffer, dtype=dtype).reshape(array.shape)


def encode(message: Message) -> list[Any]:
    """Frames ``[topic, header, buffer...]`` of a message. Arrays are not copied."""
    arrays: list[np.ndarray] = []
    header = msgspec.msgpack.encode(message, enc_hook=lambda value: _extract(arrays, value))
    return [_TOPICS[type(message)], header, *arrays]


def decode(frames: Sequence[Any]) -> Message | None:
    """The message of these frames; None for a topic that this version does not know.

    Arrays are views into the frames, not copies.

    Raises:
        ProtocolVersionError: a request of another protocol version.
        ProtocolError: anything that is not a well-formed message within bounds.
    """
    if not 2 <= len(frames) <= MAX_FRAMES:
        raise ProtocolError(f"a message of {len(frames)} frames; expected 2 to {MAX_FRAMES}")
    topic, header, *buffers = (memoryview(frame) for frame in frames)
    kind = _TYPES.get(topic.tobytes())
    if kind is None:
        return None
    if header.nbytes > MAX_HEADER_BYTES or sum(b.nbytes for b in buffers) > MAX_BUFFER_BYTES:
        raise ProtocolError(f"a message larger than {MAX_BUFFER_BYTES} bytes")
    if kind is Request:
        _check_version(header)
    try:
        message: Message = msgspec.msgpack.decode(
            header, type=kind, dec_hook=lambda cls, value: _insert(buffers, cls, value)
        )
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"a malformed {topic.tobytes().decode()} message: {error}") from error
    return message


def request_id(frames: Sequence[Any]) -> str:
    """The id of a request that could not be decoded, so that it can be refused by name; or ""."""

    class Envelope(Struct):
        id: str = ""

    try:
        return msgspec.msgpack.decode(frames[1], type=Envelope).id
    except (msgspec.MsgspecError, ValueError, IndexError):
        return ""


def _check_version(header: memoryview) -> None:
    class Envelope(Struct):
        protocol: int = PROTOCOL_VERSION

    try:
        version = msgspec.msgpack.decode(header, type=Envelope).protocol
    except (msgspec.MsgspecError, ValueError):
        return  # malformed in another way, which the full decoding reports
    if version != PROTOCOL_VERSION:
        raise ProtocolVersionError(
            f"the request speaks protocol {version}, this training speaks {PROTOCOL_VERSION}; "
            "install the same revacnn-lightning on both sides"
        )
