"""What is packed for the page, read back as the page does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from viewer.rendering.frame_codec import FramePart, SpritePart, encode_frame


def unpack(frame: bytes) -> dict[str, Any]:
    """As ``unpack`` in ``glyphs/dist/revacnn_glyphs.js``."""
    begin = 4 + int.from_bytes(frame[:4], "little")

    def revive(value: dict[str, Any]) -> Any:
        if "$array" not in value:
            return value
        kind, first, shape = value["$array"]
        assert (begin + first) % np.dtype(kind).itemsize == 0  # else the page cannot view it
        size = int(np.prod(shape))
        return np.frombuffer(frame, f"<{kind}", size, begin + first).reshape(shape)

    head: dict[str, Any] = json.loads(frame[4:begin], object_hook=revive)
    return head


def panel(part: str, **data: Any) -> FramePart:
    made = FramePart(part)
    made.data = data
    return made


def test_words_and_arrays_arrive_as_they_were() -> None:
    values = np.array([1.5, np.nan, -np.inf], np.float32)
    parts = [
        panel("a", text="∇ 3×3", values=values, nested=[{"ids": np.arange(5.0)}]),
        panel("b", levels=np.arange(6, dtype=np.uint8).reshape(1, 2, 3), none=None),
    ]
    head = unpack(encode_frame(parts, sent=7))
    assert head["sent"] == 7
    a, b = head["parts"]
    assert (a["part"], a["data"]["text"]) == ("a", "∇ 3×3")
    np.testing.assert_array_equal(a["data"]["values"], values)
    np.testing.assert_array_equal(a["data"]["nested"][0]["ids"], np.arange(5.0))
    np.testing.assert_array_equal(b["data"]["levels"], [[[0, 1, 2], [3, 4, 5]]])
    assert b["data"]["levels"].dtype == np.uint8
    assert b["data"]["none"] is None


def test_every_array_can_be_viewed_where_it_lies() -> None:
    """The page's arrays are views, which must begin at a multiple of their item's size."""
    odd = [np.zeros(n, np.uint8) for n in (1, 3, 0, 7)]
    data = {f"u{i}": array for i, array in enumerate(odd)}
    head = unpack(encode_frame([panel("a", **data, eight=np.ones(2), four=np.ones(3, np.int32))]))
    np.testing.assert_array_equal(head["parts"][0]["data"]["eight"], [1, 1])


def test_arrays_the_page_has_no_type_for_are_converted() -> None:
    data = {"whole": np.arange(3), "flags": np.array([True, False]), "one": np.float32(0.5)}
    got = unpack(encode_frame([panel("a", **data, every_second=np.arange(6.0)[::2])]))["parts"][0][
        "data"
    ]
    assert got["whole"].tolist() == [0.0, 1.0, 2.0]
    assert got["flags"].tolist() == [1, 0]
    assert got["one"] == 0.5
    assert got["every_second"].tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("value", [np.array(["word"]), object(), np.zeros(2, complex)])
def test_what_the_page_cannot_read_is_an_error_here(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        encode_frame([panel("a", value=value)])


def test_only_what_has_changed_is_sent() -> None:
    first, second = panel("a", n=1), panel("b", n=1)
    assert len(unpack(encode_frame([first, second]))["parts"]) == 2
    second.data = {"n": 2}
    assert unpack(encode_frame([first, second]))["parts"] == [{"part": "b", "data": {"n": 2}}]
    assert unpack(encode_frame([first, second]))["parts"] == []


def test_pictures_are_sent_when_they_are_new() -> None:
    view = SpritePart("view")
    view.atlas = np.full((2, 1, 1), 9, np.uint8)
    view.data = {"status": ""}
    assert unpack(encode_frame([view]))["parts"][0]["atlas"].tolist() == [[[9]], [[9]]]
    view.data = {"status": "moved"}
    assert "atlas" not in unpack(encode_frame([view]))["parts"][0]
