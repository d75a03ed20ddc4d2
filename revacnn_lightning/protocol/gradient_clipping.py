"""How a training clips gradients. `messages` exports this with all others."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["GradientClipping", "describe_clipping"]


class GradientClipping(Struct, frozen=True):
    """How the training clips gradients before each step of an optimizer.

    ``note`` says that the training has overridden what was set from outside.
    """

    value: float | None = 0.0  # 0: it clips nothing; None: only the training's own code knows
    algorithm: str = "norm"  # or "value"
    note: str = ""
    refusal: str = ""  # why it cannot be set; "" if it can

    def describe(self) -> str:
        """Return the clipping in words: "none", "norm 1" or "value 0.5"; "unknown"."""
        return "unknown" if self.value is None else describe_clipping(self.value, self.algorithm)


def describe_clipping(value: float | None, algorithm: str) -> str:
    """Return a clipping in words: "none", "norm 1" or "value 0.5"."""
    return f"{algorithm} {value:g}" if value else "none"
