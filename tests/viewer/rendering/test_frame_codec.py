"""Frames, decoded as the page decodes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from viewer.rendering.frame_codec import FilterImagesPartContent, PagePartContent, encode_frame


def decode_frame(frame: bytes) -> dict[str, Any]:
    """Decode as ``decodeFrame`` in ``viewer/static/shared/frame.js`` does."""
    begin = 4 + int.from_bytes(frame[:4], "little")

    def restore(value: dict[str, Any]) -> Any:
        if "$array" not in value:
            return value
        kind, first, shape = value["$array"]
        assert (begin + first) % np.dtype(kind).itemsize == 0  # required for a typed array's view
        size = int(np.prod(shape))
        return np.frombuffer(frame, f"<{kind}", size, begin + first).reshape(shape)

    head: dict[str, Any] = json.loads(frame[4:begin], object_hook=restore)
    return head


def make_part(part: str, **data: Any) -> PagePartContent:
    page_part = PagePartContent(part)
    page_part.data = data
    return page_part


def test_strings_and_arrays_survive_a_round_trip() -> None:
    values = np.array([1.5, np.nan, -np.inf], np.float32)
    parts = [
        make_part("a", text="∇ 3×3", values=values, nested=[{"ids": np.arange(5.0)}]),
        make_part("b", levels=np.arange(6, dtype=np.uint8).reshape(1, 2, 3), none=None),
    ]
    head = decode_frame(encode_frame(parts, sent=7))
    assert head["sent"] == 7
    a, b = head["parts"]
    assert (a["part"], a["data"]["text"]) == ("a", "∇ 3×3")
    np.testing.assert_array_equal(a["data"]["values"], values)
    np.testing.assert_array_equal(a["data"]["nested"][0]["ids"], np.arange(5.0))
    np.testing.assert_array_equal(b["data"]["levels"], [[[0, 1, 2], [3, 4, 5]]])
    assert b["data"]["levels"].dtype == np.uint8
    assert b["data"]["none"] is None


def test_arrays_are_aligned() -> None:
    """The page's typed arrays are views, which start at a multiple of their item size."""
    unaligned = [np.zeros(n, np.uint8) for n in (1, 3, 0, 7)]
    data = {f"u{i}": array for i, array in enumerate(unaligned)}
    head = decode_frame(
        encode_frame([make_part("a", **data, eight=np.ones(2), four=np.ones(3, np.int32))])
    )
    np.testing.assert_array_equal(head["parts"][0]["data"]["eight"], [1, 1])


def test_unsupported_array_types_are_converted() -> None:
    data = {"whole": np.arange(3), "flags": np.array([True, False]), "one": np.float32(0.5)}
    frame = encode_frame([make_part("a", **data, every_second=np.arange(6.0)[::2])])
    got = decode_frame(frame)["parts"][0]["data"]
    assert got["whole"].tolist() == [0.0, 1.0, 2.0]
    assert got["flags"].tolist() == [1, 0]
    assert got["one"] == 0.5
    assert got["every_second"].tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("value", [np.array(["word"]), object(), np.zeros(2, complex)])
def test_unsupported_values_raise(value: object) -> None:
    with pytest.raises(TypeError, match="Cannot send"):
        encode_frame([make_part("a", value=value)])


def test_only_changed_parts_are_sent() -> None:
    first, second = make_part("a", n=1), make_part("b", n=1)
    assert len(decode_frame(encode_frame([first, second]))["parts"]) == 2
    second.data = {"n": 2}
    assert decode_frame(encode_frame([first, second]))["parts"] == [{"part": "b", "data": {"n": 2}}]
    assert decode_frame(encode_frame([first, second]))["parts"] == []


def test_atlas_is_sent_only_when_set() -> None:
    view = FilterImagesPartContent("view")
    view.atlas = np.full((2, 1, 1), 9, np.uint8)
    view.data = {"status": ""}
    assert decode_frame(encode_frame([view]))["parts"][0]["atlas"].tolist() == [[[9]], [[9]]]
    view.data = {"status": "moved"}
    assert "atlas" not in decode_frame(encode_frame([view]))["parts"][0]
