from __future__ import annotations

import pytest

from viewer.rendering.layer_names import shorten_middle, shortest_unique_names


def test_names_are_as_short_as_they_are_unique() -> None:
    assert shortest_unique_names(["features.conv1", "features.conv2"]) == ["conv1", "conv2"]
    assert shortest_unique_names(["a.conv", "b.conv", "b.head"]) == ["a.conv", "b.conv", "head"]


def test_an_index_alone_is_no_name() -> None:
    names = ["generator.0", "generator.9", "discriminator.0"]
    assert shortest_unique_names(names) == names
    assert shortest_unique_names(["net.block.0", "net.head.1"]) == ["block.0", "head.1"]


def test_equal_endings_are_extended_until_they_differ() -> None:
    names = ["layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1"]
    assert shortest_unique_names(names) == ["layer1.0.conv1", "1.conv1", "layer2.0.conv1"]
    assert shortest_unique_names(["conv", "block.conv"]) == ["conv", "block.conv"]
    assert shortest_unique_names([]) == []


@pytest.mark.parametrize("length", [5, 8, 11, 30])
def test_long_names_are_shortened_in_the_middle(length: int) -> None:
    short = shorten_middle("features.block3.conv", length)
    assert len(short) == min(length, 20)
    assert short[0] == "f"
    assert short[-2:] == "nv"
