from __future__ import annotations

import math

import pytest

from viewer.rendering.formatting import (
    count_of,
    format_relative_change,
    format_sampling_interval,
    format_share,
    format_si,
)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (1, ""),
        (2, "every 2nd batch"),
        (8, "every 8th batch"),
        (12, "every 12th batch"),
        (32, "every 32nd batch"),
        (64, "every 64th batch"),
    ],
)
def test_format_sampling_interval(interval: int, text: str) -> None:
    assert format_sampling_interval(interval) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1234, "1.23 k"), (1_819_066_368, "1.82 G"), (4.1e12, "4.10 T")],
)
def test_format_si(number: float, text: str) -> None:
    assert format_si(number).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [(1, "filter", "1 filter"), (0, "filter", "0 filters"), (1, "batch", "1 batch"),
     (2, "batch", "2 batches"), (22_720, "filter", "22 720 filters")],
)  # fmt: skip
def test_one_thing_was_called_several(n: int, noun: str, text: str) -> None:
    assert count_of(n, noun).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("change", "text"),
    [(0.0, "±0 %"), (-0.0321, "−3.2 %"), (0.0004, "+0.040 %"), (-0.5, "−50 %"), (3.0, "+300 %")],
)
def test_relative_changes_have_two_digits_and_a_sign(change: float, text: str) -> None:
    assert format_relative_change(change).replace("\u202f", " ") == text


def test_shares_have_no_sign() -> None:
    assert format_share(0.037).replace("\u202f", " ") == "3.7 %"
    assert format_share(math.inf) == "more than can be measured"
