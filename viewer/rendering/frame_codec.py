"""The parts of the page that its own script draws, and how what is new of them is sent.

Bokeh would send every part by itself, and every array as two messages of its own. A frame is one
piece of bytes: the length of its head (uint32, little-endian), the head (JSON, padded with spaces),
and after it the arrays, each beginning at a multiple of eight. Where the head has
``{"$array": [type, first byte, shape]}``, an array belongs; ``unpack`` in ``glyphs/dist`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

__all__ = ["FramePart", "SpritePart", "encode_frame"]

ALIGNMENT = 8
# What the page knows; whole numbers of 64 bits are none of its own.
TYPES = {"f4": "f4", "f8": "f8", "u1": "u1", "i4": "i4", "b1": "u1", "i8": "f8", "u8": "f8"}

Data = dict[str, Any]


class FramePart:
    """A part of the page. ``data``, once set, goes with the next frame."""

    def __init__(self, part: str) -> None:
        self.part = part
        self._data: Data = {}
        self.changed = True

    @property
    def data(self) -> Data:
        """Words, numbers, arrays, and lists and dicts of these."""
        return self._data

    @data.setter
    def data(self, data: Data) -> None:
        self._data = data
        self.changed = True

    def take(self) -> Data:
        """What is to be sent of it; from now on nothing is new."""
        self.changed = False
        return {"part": self.part, "data": self._data}


class SpritePart(FramePart):
    """Pictures of filters, to be drawn wherever ``part`` says.

    ``data`` has words, and arrays with one row per filter. ``ids`` float64 (n,); ``places`` float32
    (n, 2), where each stands, NaN if nowhere; ``odd`` uint8 (n,), `DegenerateKind`; ``amp`` float32 (n,),
    gradient, 0 to 1; ``values`` float32 (n, 2), gradient and activation as they are; ``indices``
    int32 (n,).
    """

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self._atlas: np.ndarray | None = None
        self._painted = False

    @property
    def atlas(self) -> np.ndarray | None:
        """uint8 (n, h, w), levels, or (n, h, w, 3), red, green, blue; sent when new."""
        return self._atlas

    @atlas.setter
    def atlas(self, atlas: np.ndarray) -> None:
        self._atlas, self._painted, self.changed = atlas, True, True

    def take(self) -> Data:
        painted, self._painted = self._painted, False
        return {**super().take(), **({"atlas": self._atlas} if painted else {})}


def encode_frame(panels: Iterable[FramePart], **more: Any) -> bytes:
    """A frame with all that has changed, and with ``more`` in its head.

    Raises:
        TypeError: something in it is neither JSON nor an array that the page knows.
    """
    arrays: list[np.ndarray] = []
    places: list[dict[str, Any]] = []
    end = 0

    def set_aside(value: Any) -> Any:
        nonlocal end
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype.str[1:] not in TYPES:
            raise TypeError(f"The page cannot be sent {type(value).__name__}: {value!r:.80}")
        kind = TYPES[value.dtype.str[1:]]
        array = np.ascontiguousarray(value, f"<{kind}")
        arrays.append(array)
        places.append({"$array": [kind, end, value.shape]})
        end += array.nbytes + -array.nbytes % ALIGNMENT
        return places[-1]

    parts = [panel.take() for panel in panels if panel.changed]
    head = msgspec.json.encode({**more, "parts": parts}, enc_hook=set_aside)
    head += b" " * (-(4 + len(head)) % ALIGNMENT)
    pieces = [len(head).to_bytes(4, "little"), head]
    for array in arrays:
        pieces += [array.tobytes(), b"\0" * (-array.nbytes % ALIGNMENT)]
    return b"".join(pieces)
