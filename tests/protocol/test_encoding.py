"""encode and decode are inverse, and decode never fails but with a ProtocolError."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revacnn_lightning.errors import ProtocolError, ProtocolVersionError
from revacnn_lightning.protocol import inspections, messages, requests
from revacnn_lightning.protocol.encoding import decode, encode, request_id

LAYER = messages.LayerInfo("conv1", "Conv2d", 3, 2, (3, 3), (1, 1), 1, filter_ids=[0, 1])
PLAN = messages.PlanSummary("Remove conv1 · filter 1", [messages.FilterChange("conv1", [1])])
MESSAGES = [
    messages.Structure("run", 1, 10, "Net", [LAYER], edges=[(0, 0)]),
    messages.Status("run", "training", 10, 1, 1.5),
    messages.Request("id", requests.RemoveFilters("conv1", [1]), version=1),
    messages.Request("id", requests.ControlRun("send_state")),
    messages.Planned("id", PLAN),
    messages.Applied("id", 10, 2, PLAN, output_change=0.0),
    messages.Done("id", "Paused"),
    messages.Refused("id", "no", 1),
]


INSPECTION = inspections.FilterInspection(
    "run", 1, 10, "conv1", 0,
    image=np.ones((1, 4, 4), np.float16),
    deconvolution=np.full((1, 2, 2), 0.5, np.float16),
    guided_backpropagation=np.zeros(0, np.float16),
    top_images=[inspections.TopImage(np.ones((1, 2, 3), np.uint8), (0, 1, 2, 4), (8, 8), 2.5, 9)],
    box=(0, 0, 2, 2),
    attribution_refusal="no captum",
)  # fmt: skip


def snapshot(values: np.ndarray, **changes: object) -> messages.Snapshot:
    fields = {
        "run": "run",
        "version": 1,
        "step": 10,
        "epoch": 0,
        "batch_index": 10,
        "batches_per_epoch": 100,
        "max_epochs": 5,
        "time": 1.5,
        "loss": 0.5,
        "learning_rates": [0.1],
        "batches_per_second": 20.0,
        "statistics": ["gradient"],
        "values": values,
    }
    return messages.Snapshot(**{**fields, **changes})


def sent(message: messages.Message) -> list[bytes]:
    """Return the frames as received: bytes."""
    return [bytes(frame) for frame in encode(message)]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_decode_is_the_inverse_of_encode(message: messages.Message):
    assert decode(sent(message)) == message


def test_pixels_of_an_inspection_are_sent_as_bytes():
    frames = sent(INSPECTION)
    arrived = decode(frames)
    assert isinstance(arrived, inspections.FilterInspection)
    [find] = arrived.top_images
    assert find.crop.dtype == np.uint8
    np.testing.assert_array_equal(find.crop, INSPECTION.top_images[0].crop)
    np.testing.assert_array_equal(arrived.deconvolution, INSPECTION.deconvolution)
    assert arrived.deconvolution.dtype == np.float16
    assert (find.box, arrived.box, arrived.attribution_refusal) == (
        (0, 1, 2, 4),
        (0, 0, 2, 2),
        "no captum",
    )
    assert sum(map(len, frames)) < 600


@given(st.integers(0, 4), st.integers(0, 50))
def test_arrays_are_sent_as_raw_buffers(statistics: int, filters: int):
    values = np.random.default_rng(0).normal(size=(statistics, filters)).astype(np.float32)
    frames = sent(snapshot(values))
    received = decode(frames)
    assert frames[2] == values.tobytes()
    assert isinstance(received, messages.Snapshot)
    assert received.values.dtype == np.float32
    np.testing.assert_array_equal(received.values, values)


def test_arrays_of_other_layouts_and_types_are_converted():
    values = np.arange(6.0).reshape(2, 3).T  # float64, not contiguous
    received = decode(sent(snapshot(values)))
    assert isinstance(received, messages.Snapshot)
    np.testing.assert_array_equal(received.values, values)


def test_an_unknown_topic_is_ignored():
    assert decode([b"weather", b"\x80"]) is None


def test_unknown_fields_of_a_message_are_ignored():
    topic, header = sent(MESSAGES[1])
    grown = msgspec.msgpack.encode({**msgspec.msgpack.decode(header), "mood": "good"})
    assert decode([topic, grown]) == MESSAGES[1]


def test_unknown_fields_of_a_request_are_refused():
    body = {"type": "RemoveFilters", "layer": "conv1", "filters": [1], "only_if": "dead"}
    header = msgspec.msgpack.encode({"type": "request", "id": "x", "body": body})
    with pytest.raises(ProtocolError, match="only_if"):
        decode([b"request", header])


def request_header(**fields: object) -> bytes:
    body = {"type": "RemoveFilters", "layer": "conv1", "filters": [1]}
    return msgspec.msgpack.encode({"type": "request", "id": "x", "body": body, **fields})


def test_unknown_fields_of_the_envelope_are_refused():
    """``dryrun`` was ignored, and the filters were removed."""
    assert decode([b"request", request_header(dry_run=True)]).dry_run
    with pytest.raises(ProtocolError, match="dryrun"):
        decode([b"request", request_header(dryrun=True)])


@pytest.mark.parametrize("id", ["", "x" * 129, 7, None])
def test_a_request_without_a_usable_id_is_refused(id: object):
    with pytest.raises(ProtocolError, match="id"):
        decode([b"request", request_header(id=id)])


def test_a_request_has_no_buffers():
    with pytest.raises(ProtocolError, match="2 frames"):
        decode([b"request", request_header(), b"x"])


def test_a_request_of_another_protocol_version_is_refused():
    with pytest.raises(ProtocolVersionError, match="install the same version"):
        decode(sent(messages.Request("id", requests.Undo(), protocol=99)))


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([], "0 frames"),
        ([b"status"], "1 frames"),
        ([b"status"] * 200, "200 frames"),
        ([b"status", b""], "malformed status"),
        ([b"status", b"\xc1"], "malformed status"),
        ([b"request", b"\x81\xa2id\xa1x"], "malformed request"),
        ([b"snapshot", b"\x80"], "malformed snapshot"),
    ],
)
def test_malformed_messages_raise_protocol_error(frames: list[bytes], complaint: str):
    with pytest.raises(ProtocolError, match=complaint):
        decode(frames)


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ([2, 3], 5),
        ([2, 3], -1),
        ([-2, -3], 0),
        ([7, 1], 0),
        ([2**40, 2**40], 0),
        ([2, 3, *[1] * 100], 0),
    ],
)
def test_invalid_array_placeholders_raise_protocol_error(shape: list[int], frame: int):
    topic, header, buffer = sent(snapshot(np.zeros((2, 3), np.float32)))
    fields = msgspec.msgpack.decode(header)
    fields["values"] = {"shape": shape, "frame": frame}
    with pytest.raises(ProtocolError):
        decode([topic, msgspec.msgpack.encode(fields), buffer])


@given(st.sampled_from([b"request", b"snapshot", b"structure", b"applied"]), st.binary())
def test_noise_raises_nothing_but_protocol_error(topic: bytes, noise: bytes):
    try:
        decode([topic, noise])
    except ProtocolError:
        return


@given(st.data())
def test_a_message_damaged_in_one_byte_decodes_or_raises_protocol_error(data: st.DataObject):
    frames = sent(data.draw(st.sampled_from(MESSAGES)))
    position = data.draw(st.integers(0, len(frames[1]) - 1))
    damaged = bytearray(frames[1])
    damaged[position] = data.draw(st.integers(0, 255))
    try:
        decode([frames[0], bytes(damaged)])
    except ProtocolError:
        return


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda value: st.lists(value) | st.dictionaries(st.text(), value),
    max_leaves=20,
)
PLACEHOLDERS = st.fixed_dictionaries(
    {"shape": st.lists(st.integers(-1, 2**64 - 1), max_size=40), "frame": st.integers(-1, 2)}
)


@given(st.sampled_from([*MESSAGES, snapshot(np.zeros((2, 3), np.float32)), INSPECTION]), st.data())
def test_any_value_of_any_field_decodes_or_raises_protocol_error(
    message: messages.Message, data: st.DataObject
):
    topic, header, *buffers = sent(message)
    fields = msgspec.msgpack.decode(header)
    name = data.draw(st.sampled_from([*fields, "unknown"]))
    fields[name] = data.draw(VALUES | PLACEHOLDERS)
    frames = [topic, msgspec.msgpack.encode(fields), *buffers]
    try:
        decode(frames)
    except ProtocolError:
        request_id(frames)


def test_sizes_beyond_64_bits_raise_protocol_error():
    topic, header, _ = sent(snapshot(np.zeros((2, 3), np.float32)))
    fields = msgspec.msgpack.decode(header)
    fields["values"] = {"shape": [0, 2**63], "frame": 0}  # no bytes, as in its buffer
    with pytest.raises(ProtocolError):
        decode([topic, msgspec.msgpack.encode(fields), b""])


@pytest.mark.parametrize(
    "header",
    [
        b"\x91" * 1_000_000,
        b"\x82\xa1x" + b"\x91" * 200_000 + b"\xc0\xa2id\xa1q",
        b"\x82\xa1x" + b"\x81\xa1a" * 100_000 + b"\xc0\xa2id\xa1q",
        b"\x82\xa2id\xa1q\xa4body" + b"\x91" * 500_000 + b"\xc0",
    ],
    ids=["alone", "arrays in an unknown field", "maps in an unknown field", "in the body"],
)
def test_a_deeply_nested_header_does_not_exhaust_the_stack(header: bytes):
    with pytest.raises(ProtocolError):
        decode([b"request", header])
    assert request_id([b"request", header]) in ("", "q")
