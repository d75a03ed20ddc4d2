"""What goes wrong in a training, as part of its status."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["Alert", "AlertKind"]

AlertKind = Literal[
    "nonfinite_loss",
    "loss_diverges",
    "layer_died",
    "validation_stalls",
    "not_compiled",
    "rank_error",
]


class Alert(Struct, frozen=True):
    """Something that goes wrong in the training, found at batch ``step``.

    ``text`` is a sentence, ``layer`` the layer it is about, if any, and ``time`` the Unix time.
    """

    kind: AlertKind
    step: int
    text: str
    layer: str = ""
    time: float = 0.0
