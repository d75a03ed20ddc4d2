"""Every message, and the one inverse pair `encode(message) -> frames`, `decode(frames) -> message`.

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
from msgspec import Struct, field

from revacnn_lightning.errors import ProtocolError, ProtocolVersionError
from revacnn_lightning.protocol.requests import RequestBody, Slices

__all__ = [
    "PROTOCOL_VERSION",
    "Applied",
    "Detail",
    "Done",
    "FilterSet",
    "Find",
    "Inspection",
    "Layer",
    "Message",
    "ParameterGroup",
    "PlanSummary",
    "Planned",
    "RefusedReply",
    "Reply",
    "Request",
    "Snapshot",
    "Status",
    "Structure",
    "View",
    "decode",
    "encode",
]

# Raised when an old reader could misunderstand a new message. New fields with defaults, new
# messages and new requests do not raise it: both sides ignore what they do not know.
PROTOCOL_VERSION = 1

# Bounds of what is accepted from the other side, so that a broken or hostile peer cannot make
# either side allocate without limit. ResNet-152 has 150 convs and 75 thousand filters.
MAX_HEADER_BYTES = 16 * 2**20
MAX_BUFFER_BYTES = 256 * 2**20
MAX_FRAMES = 64


class Layer(Struct, frozen=True):
    """One conv of the network, as a viewer needs to know it.

    ``ids`` names each filter for life: a filter keeps its id when edits move its index.
    ``activation_of`` says what the statistic ``activation`` is the sum of: the module whose
    output it is (``"relu1"``), or ``""`` for the absolute values of the conv's own output.
    ``refused`` is why no filter of the layer can be added or removed, ``""`` if they can.
    """

    name: str
    kind: str  # class name: Conv2d, ConvTranspose2d
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    ids: list[int]
    frozen: list[int] = field(default_factory=list)  # indices of frozen filters
    activation_of: str = ""
    observed: bool = True  # False: no statistics reach us, e.g. inside a compiled region
    refused: str = ""


class Structure(Struct, frozen=True, tag="structure"):
    """The network as it is now. ``layers`` in forward order; ``edges`` are (from, to) indices."""

    run: str  # identifies this training process's run; a new one means: forget what you knew
    version: int  # raised by one with every edit
    step: int
    model: str
    layers: list[Layer]
    edges: list[tuple[int, int]] = field(default_factory=list)
    parameters: int = 0  # trainable and frozen, of the whole model


class Snapshot(Struct, frozen=True, tag="snapshot"):
    """What one training batch told us.

    ``values`` is float32 of shape (len(statistics), number of filters): the filters of all
    layers of structure ``version``, one layer after the other in the structure's order. NaN where
    nothing was measured in this batch; ``every`` says on every how manyth batch a statistic is.
    """

    run: str
    version: int
    step: int  # batches trained since the start of fit, counting every micro-batch
    epoch: int
    batch: int  # within the epoch
    batches: int  # in an epoch; 0 if unknown
    epochs: int  # planned; 0 if unknown
    time: float  # seconds since the epoch (Unix), when published
    loss: float | None
    learning_rates: list[float]
    batches_per_second: float
    statistics: list[str]
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    metrics: dict[str, float] = field(default_factory=dict)  # what the module logged
    every: list[int] = field(default_factory=list)  # of each of ``statistics``; empty: 1
    nonfinite: bool = False  # inf or NaN among the gradients of this batch


class View(Struct, frozen=True):
    """One way of looking at the filters of a layer.

    ``features`` (C, d), d <= 64: a fixed random projection of what is looked at, for embeddings;
    ``images`` (C, h, w) or, for three input channels, (C, h, w, 3): for thumbnails, unscaled.
    Either may be of shape (0,) where the training cannot tell.
    """

    features: np.ndarray
    images: np.ndarray


class Detail(Struct, frozen=True, tag="detail"):
    """An opened layer. Rows in the order of the filters of structure ``version``."""

    run: str
    version: int
    step: int
    layer: str
    coefficients: View
    gradients: View
    activations: View
    activation_gradients: View
    image: np.ndarray  # the input image, (channels, H, W)
    image_index: int | None = None  # into the validation data; None: first of the batch
    label: str = ""
    slices: Slices = "strongest"  # that the images of coefficients and gradients show


class Find(Struct, frozen=True):
    """A training image that excites a filter.

    ``crop`` uint8 (1 or 3, h, w): what the unit that responds most sees of the image, scaled to
    the image's own range, and down where it is large. ``box``: top, left, bottom, right of that,
    in pixels of the image, whose ``size`` is (H, W). ``step``: the batch that it was in.
    """

    crop: np.ndarray
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    response: float
    step: int


class Inspection(Struct, frozen=True, tag="inspection"):
    """What a filter looks for; ``filter`` is its index in structure ``version``.

    ``finds``: the training images of recent batches that excite it most, the strongest first, nine
    at most; ``finds_refused``: what is to be said of them, why there are none or not cropped.

    ``image`` is the shown one as in `Detail`, and ``size`` that of the original. The strongest
    ``response`` to it comes from what lies in ``box`` of the original. ``deconvolution`` and
    ``guided`` (channels, h, w) tell of these pixels how they excite the filter, float16 of at most
    1 in magnitude; of shape (0,) where that cannot be told, for the reason ``refused``.
    """

    run: str
    version: int
    step: int
    layer: str
    filter: int
    image: np.ndarray
    deconvolution: np.ndarray
    guided: np.ndarray
    finds: list[Find] = field(default_factory=list)
    finds_refused: str = ""
    sees: tuple[int, int] = (0, 0)  # height and width of the receptive field; (0, 0): not known
    response: float | None = None
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: tuple[int, int] = (0, 0)
    image_index: int | None = None  # into the validation data; None: first of the batch
    refused: str = ""


class ParameterGroup(Struct, frozen=True):
    """Hyper-parameters of one parameter group as they are now; None: the optimizer has none."""

    optimizer: int
    group: int
    kind: str  # the optimizer's class name
    parameters: int
    learning_rate: float | None = None
    weight_decay: float | None = None


class Status(Struct, frozen=True, tag="status"):
    """What the run is doing; sent on every change, and about once a second in between."""

    run: str
    state: Literal["training", "validating", "paused", "finished", "failed"]
    step: int
    version: int
    time: float
    detail: str = ""
    groups: list[ParameterGroup] = field(default_factory=list)


class FilterSet(Struct, frozen=True):
    """Filters of one layer that an edit removes (``filters``) or adds (``count``)."""

    layer: str
    filters: list[int] = field(default_factory=list)
    count: int = 0


class PlanSummary(Struct, frozen=True):
    """What an edit does, in words and numbers, for a person to read before Apply."""

    title: str  # "Remove conv2 · filter 36"
    sets: list[FilterSet] = field(default_factory=list)
    why: str = ""  # why several go together: "one per group: 32"
    parameters_before: int = 0
    parameters_after: int = 0
    macs_before: int = 0  # multiply-accumulates of one sample's forward; 0: not known
    macs_after: int = 0
    notes: list[str] = field(default_factory=list)  # "Adafactor's state cannot be kept exactly"


class Request(Struct, frozen=True, tag="request"):
    """The envelope of a request. ``version``: the structure its indices mean; None: any."""

    id: str
    body: RequestBody
    version: int | None = None
    dry_run: bool = False
    protocol: int = PROTOCOL_VERSION


class Planned(Struct, frozen=True, tag="planned"):
    """Answer to a dry run."""

    id: str
    plan: PlanSummary


class Applied(Struct, frozen=True, tag="applied"):
    """The request was carried out, between the batches ``step - 1`` and ``step``."""

    id: str
    step: int
    version: int
    plan: PlanSummary
    output_change: float | None = None  # relative change of the output on the verifying batch
    seconds: float = 0.0


class Done(Struct, frozen=True, tag="done"):
    """A command (pause, checkpoint, learning rate, ...) was carried out."""

    id: str
    detail: str = ""  # "Saved revacnn/step=120.ckpt"


class RefusedReply(Struct, frozen=True, tag="refused"):
    """The request was not carried out, nothing was changed."""

    id: str
    reason: str
    version: int = -1  # the structure version now; -1 if unknown


Reply = Planned | Applied | Done | RefusedReply
Message = Structure | Snapshot | Detail | Inspection | Status | Request | Reply

_TYPES: dict[bytes, Any] = {
    b"structure": Structure,
    b"snapshot": Snapshot,
    b"detail": Detail,
    b"inspection": Inspection,
    b"status": Status,
    b"request": Request,
    b"planned": Planned,
    b"applied": Applied,
    b"done": Done,
    b"refused": RefusedReply,
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
