"""Numbers formatted for the page."""

from __future__ import annotations

import math
import time

__all__ = [
    "count_of",
    "format_count",
    "format_date_time",
    "format_number",
    "format_relative_change",
    "format_sampling_interval",
    "format_scientific",
    "format_selected_filters",
    "format_share",
    "format_short_date_time",
    "format_si",
    "format_time_of_day",
]


def format_count(n: int) -> str:
    """Return an integer with narrow no-break spaces: ``22720`` as ``22 720``."""
    return f"{n:,}".replace(",", "\u202f")


def count_of(n: int, noun: str) -> str:
    """Return a number of things by their name in the singular: ``1 filter``, ``22 720 filters``."""
    ending = "" if n == 1 else "es" if noun.endswith("ch") else "s"
    return f"{format_count(n)} {noun}{ending}"


def format_time_of_day(unix_time: float) -> str:
    """Return the local time of a Unix time: ``14:03:27``."""
    return time.strftime("%H:%M:%S", time.localtime(unix_time))


def format_date_time(unix_time: float) -> str:
    """Return the local date and time of a Unix time: ``2026-03-01 14:03:27``."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_time))


def format_short_date_time(unix_time: float) -> str:
    """Return the local time of a Unix time today, else the day and the time: ``Mar 1, 14:03``."""
    then, now = time.localtime(unix_time), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M:%S", then)
    return f"{time.strftime('%b', then)} {then.tm_mday}, {time.strftime('%H:%M', then)}"


def format_number(value: float | None) -> str:
    """Return three significant digits, without exponent from 0.001 to 100 000; ``–`` for None."""
    if value is None or not math.isfinite(value):
        return "–" if value is None or math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def format_si(n: float) -> str:
    """Return a number with an SI prefix: ``1819066368`` as ``1.82 G``."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{format_number(n / size)}\u202f{prefix}"
    return f"{n:.0f}"


def format_relative_change(change: float) -> str:
    """Return a relative change in percent, with sign: ``−3.2 %``, ``+0.04 %``."""
    if change == 0:
        return "±0 %"
    digits = max(0, min(3, 1 - math.floor(math.log10(abs(100 * change)))))
    return f"{100 * change:+.{digits}f}\u202f%".replace("-", "−")


def format_share(share: float) -> str:
    """Return a non-negative share in percent: ``3.2 %``."""
    if not math.isfinite(share):
        return "more than can be measured"
    return format_relative_change(share).lstrip("+")


def format_scientific(value: float | None) -> str:
    """Return a number in scientific notation: ``2.48e-3``."""
    if value is None or not math.isfinite(value):
        return "–"
    return "0" if value == 0 else f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")


def format_selected_filters(index: int, n_selected: int) -> str:
    """Return which filters are selected: ``filter 3`` or ``filter 3 and 4 more``."""
    return f"filter {index}" + (f" and {n_selected - 1} more" if n_selected > 1 else "")


def format_sampling_interval(interval: int) -> str:
    """Return a sampling interval in batches: ``every 4th batch``; "" for every batch."""
    if interval <= 1:
        return ""
    endings = {1: "st", 2: "nd", 3: "rd"}
    ending = "th" if interval % 100 in (11, 12, 13) else endings.get(interval % 10, "th")
    return f"every {interval}{ending} batch"
