"""Convert messages to frames: `encode(message) -> frames` and `decode(frames) -> message`.

A message is ``[topic, header, buffer...]``. The topic names the message type, and subscribers
filter by it. The header is the message in msgpack. The buffers are raw little-endian arrays
(float32; float16 in details; uint8 for pixels) that the header describes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct

from revacnn_lightning.errors import ProtocolError, ProtocolVersionError
from revacnn_lightning.protocol.access_messages import Access, KeyList, RequestOutcome
from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.inspections import FilterInspection, ImagePass, LayerDetail
from revacnn_lightning.protocol.messages import (
    MAX_ID_LENGTH,
    PROTOCOL_VERSION,
    Applied,
    Done,
    History,
    Message,
    Planned,
    Refused,
    Request,
    Snapshot,
    Status,
    Structure,
)
from revacnn_lightning.protocol.prices import FilterPrices
from revacnn_lightning.protocol.rank_messages import RankValues, TroubledRanks

__all__ = [
    "DECODING_ERRORS",
    "MAX_BUFFER_BYTES",
    "MAX_REQUEST_BYTES",
    "TOPICS",
    "decode",
    "encode",
    "request_id",
]

# Limits on received messages, so that a broken or hostile peer cannot make this side allocate
# without bound. ResNet-152 has 150 convolutions and 75 thousand filters.
MAX_HEADER_BYTES = 16 * 2**20
MAX_BUFFER_BYTES = 256 * 2**20
MAX_FRAMES = 128
MAX_REQUEST_BYTES = 2**15  # of a frame; merging 4,096 filters takes 12 kB
# What msgspec and NumPy raise for malformed bytes: they must cost no more than their message.
DECODING_ERRORS = (
    msgspec.MsgspecError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)

_TYPES: dict[bytes, Any] = {
    b"structure": Structure,
    b"snapshot": Snapshot,
    b"layer_detail": LayerDetail,
    b"filter_inspection": FilterInspection,
    b"image_pass": ImagePass,
    b"filter_prices": FilterPrices,
    b"layer_evidence": LayerEvidence,
    b"growth_gains": GrowthGains,
    b"class_lens": ClassLens,
    b"class_answers": ClassAnswers,
    b"confusion": Confusion,
    b"status": Status,
    b"request": Request,
    b"planned": Planned,
    b"applied": Applied,
    b"done": Done,
    b"refused": Refused,
    b"history": History,
    b"access": Access,
    b"key_list": KeyList,
    b"request_outcome": RequestOutcome,
    b"rank_states": TroubledRanks,
    b"rank_values": RankValues,
}
_TOPIC_OF = {cls: topic for topic, cls in _TYPES.items()}
TOPICS = frozenset(_TYPES)
_DTYPES: dict[str, Literal["f2", "f4", "u1"]] = {"f2": "f2", "u1": "u1"}  # all others: f4


class _Array(Struct, frozen=True):
    """The placeholder of an array in the header: shape, type, and index of its buffer."""

    shape: list[int]
    frame: int
    dtype: Literal["f2", "f4", "u1"] = "f4"


def _extract(arrays: list[np.ndarray], value: Any) -> Any:
    """Encoder hook: move an array from the header into a buffer."""
    if isinstance(value, np.ndarray):
        dtype = _DTYPES.get(value.dtype.str[1:], "f4")
        arrays.append(np.ascontiguousarray(value, dtype=f"<{dtype}"))
        return _Array(list(value.shape), len(arrays) - 1, dtype)
    raise NotImplementedError(f"messages cannot hold a {type(value).__name__}")


def _insert(buffers: Sequence[Any], kind: type, value: Any) -> Any:
    """Decoder hook: return the array for its placeholder in the header."""
    if kind is not np.ndarray:
        raise NotImplementedError(f"messages cannot hold a {kind.__name__}")
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
    """Return the frames ``[topic, header, buffer...]`` of a message. Arrays are not copied."""
    arrays: list[np.ndarray] = []
    header = msgspec.msgpack.encode(message, enc_hook=lambda value: _extract(arrays, value))
    return [_TOPIC_OF[type(message)], header, *arrays]


def decode(frames: Sequence[Any]) -> Message | None:
    """Return the message of these frames; None if this version does not know the topic.

    Arrays are views into the frames, not copies.

    Raises:
        ProtocolVersionError: the frames are a request of another protocol version.
        ProtocolError: the frames are malformed or too large.
    """
    if not 2 <= len(frames) <= MAX_FRAMES:
        raise ProtocolError(f"the message has {len(frames)} frames; expected 2 to {MAX_FRAMES}")
    topic, header, *buffers = (memoryview(frame) for frame in frames)
    kind = _TYPES.get(topic.tobytes())
    if kind is None:
        return None
    if header.nbytes > MAX_HEADER_BYTES or sum(b.nbytes for b in buffers) > MAX_BUFFER_BYTES:
        raise ProtocolError(f"the message is larger than {MAX_BUFFER_BYTES} bytes")
    if kind is Request:
        _check_version(header)
        if buffers:
            raise ProtocolError(f"a request has 2 frames, topic and header, not {len(frames)}")
    try:
        message: Message = msgspec.msgpack.decode(
            header, type=kind, dec_hook=lambda cls, value: _insert(buffers, cls, value)
        )
    except DECODING_ERRORS as error:
        raise ProtocolError(f"malformed {topic.tobytes().decode()} message: {error}") from error
    return message


class _RequestId(Struct):
    id: str = ""


class _Version(Struct):
    protocol: int = PROTOCOL_VERSION


def request_id(frames: Sequence[Any]) -> str:
    """Return the id of a request whose other fields may be malformed; "" if it is unknown."""
    try:
        return msgspec.msgpack.decode(frames[1], type=_RequestId).id[:MAX_ID_LENGTH]
    except DECODING_ERRORS:
        return ""


def _check_version(header: memoryview) -> None:
    try:
        version = msgspec.msgpack.decode(header, type=_Version).protocol
    except DECODING_ERRORS:
        return  # malformed in another way: decoding the whole header reports it
    if version != PROTOCOL_VERSION:
        raise ProtocolVersionError(
            f"the request uses protocol {version}, this run uses {PROTOCOL_VERSION}; "
            "install the same version of revacnn-lightning on both sides"
        )
