"""Frames: all changed parts of the page in one binary message.

Bokeh would send every part separately, and every array as two messages. A frame consists of the
length of its header (uint32, little-endian), the header (JSON, padded with spaces) and the arrays,
each aligned to eight bytes. In the header, ``{"$array": [type, first byte, shape]}`` stands for an
array. ``decodeFrame`` in ``viewer/static/shared/frame.js`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

__all__ = ["FilterImagesPartContent", "PagePartContent", "encode_frame"]

ALIGNMENT = 8
# The page's types of arrays. 64-bit integers are converted to float64.
TYPES = {"f4": "f4", "f8": "f8", "u1": "u1", "i4": "i4", "b1": "u1", "i8": "f8", "u8": "f8"}

Data = dict[str, Any]


class PagePartContent:
    """A part of the page. Setting ``data`` sends it with the next frame.

    Attributes:
        part: the name of the part of the page.
        changed: whether there is anything to send.
    """

    def __init__(self, part_name: str) -> None:
        self.part = part_name
        self._data: Data = {}
        self.changed = True

    @property
    def data(self) -> Data:
        """Strings, numbers, arrays, and lists and dicts of these."""
        return self._data

    @data.setter
    def data(self, data: Data) -> None:
        self._data = data
        self.changed = True

    def pop_changes(self) -> Data:
        """Return what to send, and mark it as sent."""
        self.changed = False
        return {"part": self.part, "data": self._data}


class FilterImagesPartContent(PagePartContent):
    """A part with images of filters.

    ``data`` contains strings, and arrays with one row per filter: ``ids`` float64 (n,);
    ``positions`` float32 (n, 2), NaN if hidden; ``degenerate`` uint8 (n,), `ComparisonExclusion`;
    ``amplitude`` float32 (n,), of the gradient, 0 to 1; ``values`` float32 (n, 2), gradient and
    activation; ``indices`` int32 (n,).
    """

    def __init__(self, part_name: str) -> None:
        super().__init__(part_name)
        self._atlas: np.ndarray | None = None
        self._atlas_changed = False

    @property
    def atlas(self) -> np.ndarray | None:
        """Levels, uint8 (n, h, w), or red, green and blue, uint8 (n, h, w, 3)."""
        return self._atlas

    @atlas.setter
    def atlas(self, atlas: np.ndarray) -> None:
        self._atlas, self._atlas_changed, self.changed = atlas, True, True

    def pop_changes(self) -> Data:
        atlas_changed, self._atlas_changed = self._atlas_changed, False
        return {**super().pop_changes(), **({"atlas": self._atlas} if atlas_changed else {})}


def encode_frame(parts: Iterable[PagePartContent], **header: Any) -> bytes:
    """Return a frame with all changes, and mark them as sent.

    Args:
        parts: the parts of the page. Those without changes are left out.
        header: additional entries of the header.

    Raises:
        TypeError: a value is neither JSON nor an array of a supported type.
    """
    arrays: list[np.ndarray] = []
    end = 0

    def encode_array(value: Any) -> Any:
        nonlocal end
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype.str[1:] not in TYPES:
            raise TypeError(f"Cannot send {type(value).__name__} to the page: {value!r:.80}")
        kind = TYPES[value.dtype.str[1:]]
        array = np.ascontiguousarray(value, f"<{kind}")
        arrays.append(array)
        reference = {"$array": [kind, end, value.shape]}
        end += array.nbytes + -array.nbytes % ALIGNMENT
        return reference

    changes = [part.pop_changes() for part in parts if part.changed]
    head = msgspec.json.encode({**header, "parts": changes}, enc_hook=encode_array)
    head += b" " * (-(4 + len(head)) % ALIGNMENT)
    pieces = [len(head).to_bytes(4, "little"), head]
    for array in arrays:
        pieces += [array.tobytes(), b"\0" * (-array.nbytes % ALIGNMENT)]
    return b"".join(pieces)
