"""Short names of the modules between the layers, as the network view writes them on their marks."""

from __future__ import annotations

import re

__all__ = ["short_type"]

MAX_LENGTH = 14  # characters
# The beginning of a class name, and what is written instead of the whole name.
SHORT = (
    ("BatchNorm", "batch norm"),
    ("SyncBatchNorm", "batch norm"),
    ("LayerNorm", "layer norm"),
    ("GroupNorm", "group norm"),
    ("InstanceNorm", "instance norm"),
    ("AdaptiveAvgPool", "average pool"),
    ("AvgPool", "average pool"),
    ("AdaptiveMaxPool", "max pool"),
    ("MaxPool", "max pool"),
    ("Dropout", "dropout"),
    ("MultiheadAttention", "attention"),
    ("Linear", "linear"),
    ("Flatten", "flatten"),
    ("Unflatten", "unflatten"),
    ("Upsample", "upsample"),
    ("PixelShuffle", "pixel shuffle"),
)
DIMENSIONS = re.compile(r"[123]d$")


def short_type(class_name: str) -> str:
    """Return a short name for modules of a class."""
    for beginning, short in SHORT:
        if class_name.startswith(beginning):
            return short
    name = DIMENSIONS.sub("", class_name)
    return name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH - 1]}…"
