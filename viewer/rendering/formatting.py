"""Numbers as a person reads them."""

from __future__ import annotations

import math
import time

__all__ = [
    "format_count",
    "format_number",
    "format_relative_change",
    "format_sampling_interval",
    "format_scientific",
    "format_share",
    "format_si",
    "format_time_of_day",
]


def format_count(n: int) -> str:
    """``22720`` as ``22 720``, with spaces that do not break."""
    return f"{n:,}".replace(",", "\u202f")


def format_time_of_day(moment: float) -> str:
    """A Unix time as a local time of day: ``14:03:27``."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def format_number(value: float | None) -> str:
    """Three significant digits, without an exponent where that stays short."""
    if value is None or not math.isfinite(value):
        return "–" if value is None or math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def format_si(n: float) -> str:
    """``1 819 066 368`` as ``1.82 G``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{format_number(n / size)}\u202f{unit}"
    return f"{n:.0f}"


def format_relative_change(change: float) -> str:
    """A relative change: ``−3.2 %``, ``+0.04 %``."""
    if change == 0:
        return "±0 %"
    digits = max(0, min(3, 1 - math.floor(math.log10(abs(100 * change)))))
    return f"{100 * change:+.{digits}f}\u202f%".replace("-", "−")


def format_share(share: float) -> str:
    """A share of something: ``3.2 %``."""
    if not math.isfinite(share):
        return "more than can be told"
    return format_relative_change(share).lstrip("+")


def format_scientific(value: float | None) -> str:
    """A gradient: ``2.48e-3``."""
    if value is None or not math.isfinite(value):
        return "–"
    return "0" if value == 0 else f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")


def format_sampling_interval(every: int) -> str:
    """On which batches something is measured: ``every 4th batch``; nothing where on all."""
    if every <= 1:
        return ""
    endings = {1: "st", 2: "nd", 3: "rd"}
    ending = "th" if every % 100 in (11, 12, 13) else endings.get(every % 10, "th")
    return f"every {every}{ending} batch"
