"""Prices of removals in words."""

from __future__ import annotations

import math

import pytest

from revacnn_lightning.protocol.prices import RemovalPrice
from viewer.rendering.prices import format_removal_price


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (0.0123, 0.003, "loss +0.0123 ± 0.00300"),
        (-0.5, math.nan, "loss −0.500"),
        (0.0, 0.01, "loss ±0 ± 0.0100"),
        (0.0, 0.0, "loss unchanged"),
        (0.0, math.nan, "loss unchanged"),
    ],
)
def test_the_change_has_a_sign_and_its_error(change: float, error: float, text: str) -> None:
    assert format_removal_price(RemovalPrice(change, error, 1.0, 32, 7)) == text
