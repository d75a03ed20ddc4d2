"""Static figures as SVG text: they need no plotting library, and notebooks show them."""

from __future__ import annotations

import base64
import struct
import zlib
from html import escape
from pathlib import Path

import numpy as np

__all__ = ["COLORS", "Figure", "image", "rectangle", "text"]

# The light theme of the viewer: forward is blue, backward is orange.
COLORS = {
    "card": "#ffffff",
    "line": "#dfe5ee",
    "grid": "#e9edf3",
    "text": "#1b2636",
    "muted": "#5d6b80",
    "blue": "#1f6fb8",
    "orange": "#bd5308",
    "dead": "#aab4c4",
    "frozen": "#0284c7",
}
FONT = "Inter, 'Segoe UI', system-ui, Roboto, 'Helvetica Neue', sans-serif"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Figure:
    """A figure that a notebook shows and `save` writes.

    Args:
        title: describes the figure, also for screen readers.
        width: pixels.
        height: pixels.
        parts: SVG elements.
    """

    def __init__(self, title: str, width: float, height: float, parts: list[str]) -> None:
        self.title = title
        self.width = width
        self.height = height
        self._parts = parts

    @property
    def svg(self) -> str:
        """The text of the SVG document."""
        size = f'width="{self.width:g}" height="{self.height:g}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
            f'viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'font-family="{FONT}" font-size="12">'
            f"<title>{escape(self.title)}</title>"
            f"{rectangle(0, 0, self.width, self.height, COLORS['card'])}"
            f"{''.join(self._parts)}</svg>"
        )

    def save(self, path: str | Path) -> Path:
        """Write the figure as an SVG file; return its path."""
        path = Path(path).expanduser()
        path.write_text(self.svg, encoding="utf-8")
        return path

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="max-width: 100%; overflow-x: auto">{self.svg}</div>'

    def __repr__(self) -> str:
        return f"<Figure: {self.title}>"


def text(
    x: float, y: float, content: str, color: str, *, size: float = 12, anchor: str = "start",
    bold: bool = False,
) -> str:  # fmt: skip
    """Return an SVG text element with its baseline at ``y``."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{color}" font-size="{size:g}" '
        f'text-anchor="{anchor}"{weight}>{escape(content)}</text>'
    )


def rectangle(
    x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "none"
) -> str:
    """Return an SVG rectangle element."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{max(0, width):.4g}" height="{max(0, height):.4g}" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def image(x: float, y: float, size: float, pixels: np.ndarray) -> str:
    """Return an SVG image element: a square filled by uint8 pixels, (h, w) or (h, w, 3).

    The pixels are not smoothed.
    """
    data = base64.b64encode(_png(pixels)).decode()
    return (
        f'<image x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" '
        f'preserveAspectRatio="xMidYMid" style="image-rendering: pixelated" '
        f'href="data:image/png;base64,{data}"/>'
    )


def _png(pixels: np.ndarray) -> bytes:
    """Return a PNG file: the format is so simple that an imaging library would be a luxury."""
    height, width = pixels.shape[:2]
    color_type = 2 if pixels.ndim == 3 else 0
    rows = np.ascontiguousarray(pixels, np.uint8).reshape(height, -1)
    unfiltered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
