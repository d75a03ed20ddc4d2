"""Set how a running training clips gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.gradient_clipping import describe_clipping
from revacnn_lightning.protocol.messages import GradientClipping
from revacnn_lightning.protocol.requests import SetGradientClipping

__all__ = [
    "ClippingControl",
    "FixedClipping",
    "check_gradient_clipping",
    "describe_clipping_request",
    "set_gradient_clipping",
]

ALGORITHMS = ("norm", "value")


class ClippingControl(Protocol):
    """What a training loop must offer so that its gradient clipping can be seen and set."""

    def describe(self) -> GradientClipping:
        """Return how gradients are clipped at present."""

    def why_not(self, request: SetGradientClipping) -> str:
        """Return why a request would have no effect or break the training; "" if it can be set."""

    def set(self, request: SetGradientClipping) -> Callable[[], object]:
        """Clip from the next step on; return what sets the clipping before again."""

    def detect_override(self, step: int) -> bool:
        """Return whether the training has overridden what was set, just now before ``step``."""


@dataclass(frozen=True)
class FixedClipping:
    """The `ClippingControl` of a training whose own code decides on the clipping."""

    refusal: str

    def describe(self) -> GradientClipping:
        return GradientClipping(None, refusal=self.refusal)

    def why_not(self, request: SetGradientClipping) -> str:
        return self.refusal

    def set(self, request: SetGradientClipping) -> Callable[[], object]:
        """Refuse to change anything.

        Raises:
            EditRefusedError: always.
        """
        raise EditRefusedError(self.refusal)

    def detect_override(self, step: int) -> bool:
        return False


def check_gradient_clipping(request: SetGradientClipping, clipping: ClippingControl) -> None:
    """Check that a request can be carried out.

    Raises:
        EditRefusedError: the value is out of range, or the training cannot clip in this way.
    """
    value = request.value or 0.0
    if not math.isfinite(value) or value < 0:
        raise EditRefusedError(
            f"gradients are clipped at a finite number of at least 0, not at {request.value}"
        )
    if request.algorithm not in ALGORITHMS:
        raise EditRefusedError(f"there is no algorithm {request.algorithm!r} of clipping")
    if reason := clipping.why_not(request):
        raise EditRefusedError(reason)


def set_gradient_clipping(
    request: SetGradientClipping, clipping: ClippingControl
) -> tuple[str, Callable[[], object]]:
    """Set the clipping; return what was done, in words, and what sets the one before again.

    Raises:
        EditRefusedError: as `check_gradient_clipping`; nothing has changed.
    """
    check_gradient_clipping(request, clipping)
    before = clipping.describe().describe()
    restore = clipping.set(request)
    after = describe_clipping(request.value, request.algorithm)
    return f"gradient clipping {before} → {after}", restore


def describe_clipping_request(request: SetGradientClipping) -> str:
    """Return what a request does, in words."""
    if not request.value:
        return "Stop clipping the gradient"
    return f"Clip the gradient at {describe_clipping(request.value, request.algorithm)}"
