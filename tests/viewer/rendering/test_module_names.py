from __future__ import annotations

import pytest

from viewer.rendering.module_names import MAX_LENGTH, short_type


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("BatchNorm2d", "batch norm"),
        ("MaxPool1d", "max pool"),
        ("AdaptiveAvgPool3d", "average pool"),
        ("ReLU", "ReLU"),
        ("MultiheadAttention", "attention"),
        ("PReLU", "PReLU"),
        ("ReflectionPad2d", "ReflectionPad"),
    ],
)
def test_known_modules_have_plain_names_and_others_their_own(name: str, short: str) -> None:
    assert short_type(name) == short


def test_a_long_name_is_cut() -> None:
    assert short_type("A" * 40) == "A" * (MAX_LENGTH - 1) + "…"
