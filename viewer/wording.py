"""Numbers as a person reads them."""

from __future__ import annotations

import math
import time

__all__ = ["clock", "compact", "count", "scientific"]


def count(n: int) -> str:
    """``22720`` as ``22 720``, with spaces that do not break."""
    return f"{n:,}".replace(",", "\u202f")


def clock(moment: float) -> str:
    """A Unix time as a local time of day: ``14:03:27``."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def compact(value: float | None) -> str:
    """Three significant digits, without an exponent where that stays short."""
    if value is None or not math.isfinite(value):
        return "–" if value is None or math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def scientific(value: float | None) -> str:
    """A gradient: ``2.48e-3``."""
    if value is None or not math.isfinite(value):
        return "–"
    return "0" if value == 0 else f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")
