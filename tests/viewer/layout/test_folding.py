from __future__ import annotations

import pytest

from tests.viewer.fake_networks import NETS
from viewer.layout.folding import (
    MAX_OPEN_LAYERS,
    MAX_UNITS,
    closed_block_of,
    closed_blocks_after_reveal,
    find_blocks,
    fold_blocks,
    initially_closed_blocks,
    innermost_open_block_of,
)


def names_of(net: str) -> list[str]:
    return [conv.name for conv in NETS[net]()]


def folded(names: list[str]) -> list[str]:
    return [unit.name for unit in fold_blocks(names, initially_closed_blocks(names))]


def test_blocks_are_modules_with_several_layers_but_not_all() -> None:
    names = ["net.stem", "net.body.0.conv1", "net.body.0.conv2", "net.body.1.conv1", "net.head.0"]
    assert [(b.path, b.first, b.end) for b in find_blocks(names)] == [
        ("net.body", 1, 4), ("net.body.0", 1, 3),
    ]  # fmt: skip


def test_a_module_around_the_same_layers_is_the_same_block() -> None:
    names = ["stem", "a.main.0", "a.main.1", "b"]
    assert [block.path for block in find_blocks(names)] == ["a"]


def test_interleaved_modules_are_no_blocks() -> None:
    """Folded, each would read the other: a loop, which has no order from left to right."""
    names = ["up.0.a", "up.0.b", "merge.0", "up.1.a", "up.1.b", "merge.1"]
    assert [block.path for block in find_blocks(names)] == ["up.0", "up.1"]


@pytest.mark.parametrize("net", sorted(NETS))
def test_units_hold_every_layer_once(net: str) -> None:
    names = names_of(net)
    for closed in (
        set(),
        initially_closed_blocks(names),
        {block.path for block in find_blocks(names)},
    ):
        units = fold_blocks(names, closed)
        assert [layer for unit in units for layer in unit.layers] == list(range(len(names)))
        assert all(unit.is_block or names[unit.first] == unit.name for unit in units)
        assert {unit.name for unit in units if unit.is_block} <= set(closed)


@pytest.mark.parametrize("net", sorted(NETS))
def test_only_large_networks_are_folded_at_first(net: str) -> None:
    names = names_of(net)
    closed = initially_closed_blocks(names)
    assert bool(closed) == (len(names) > MAX_OPEN_LAYERS)
    assert len(fold_blocks(names, closed)) <= (MAX_UNITS if closed else MAX_OPEN_LAYERS)


def test_resnet50_is_opened_down_to_its_residual_blocks() -> None:
    names = names_of("resnet50")
    blocks = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
    expected = [f"{stage}.{i}" for stage, n in blocks.items() for i in range(n)]
    assert folded(names) == ["conv1", *expected]


def test_densenet121_is_folded_to_its_dense_blocks() -> None:
    assert folded(names_of("densenet121")) == [
        "features.conv0",
        *(
            name
            for k in (1, 2, 3)
            for name in (f"features.denseblock{k}", f"features.transition{k}.conv")
        ),
        "features.denseblock4",
    ]


def test_opening_a_block_shows_what_is_inside_in_its_place() -> None:
    names = names_of("densenet121")
    closed = initially_closed_blocks(names) - {"features.denseblock1"}
    units = fold_blocks(names, closed)
    assert [unit.name for unit in units][:3] == [
        "features.conv0",
        "features.denseblock1.denselayer1",
        "features.denseblock1.denselayer2",
    ]
    assert len(units) == 8 - 1 + 6


def test_long_lists_of_modules_are_divided_into_ranges() -> None:
    """Otherwise a network without modules of modules could not be folded."""
    names = [f"layers.{i}" for i in range(100)]
    assert folded(names) == [f"layers.{10 * k}–{10 * k + 9}" for k in range(10)]
    third = names_of("resnet152")
    paths = [block.path for block in find_blocks(third)]
    assert {"layer3.0–5", "layer3.30–35"} <= set(paths)
    assert not any("layer2" in path and "–" in path for path in paths)


def test_the_closed_block_of_a_layer_is_the_outermost_one() -> None:
    names = names_of("resnet50")
    layer = names.index("layer3.2.conv2")
    everything = {block.path for block in find_blocks(names)}
    outer = closed_block_of(layer, names, everything)
    inner = closed_block_of(layer, names, everything - {"layer3"})
    assert outer is not None
    assert outer.path == "layer3"
    assert inner is not None
    assert inner.path == "layer3.2"
    assert closed_block_of(layer, names, everything - {"layer3", "layer3.2"}) is None
    assert closed_block_of(0, names, everything) is None


def test_the_block_to_close_is_the_innermost_open_one() -> None:
    names = names_of("resnet50")
    layer = names.index("layer3.2.conv2")
    open_ = innermost_open_block_of(layer, names, set())
    around = innermost_open_block_of(layer, names, {"layer3.2"})
    assert open_ is not None
    assert open_.path == "layer3.2"
    assert around is not None
    assert around.path == "layer3"
    assert innermost_open_block_of(layer, names, {"layer3", "layer3.2"}) is None


def test_revealing_a_layer_opens_all_blocks_around_it_and_no_others() -> None:
    names = names_of("resnet50")
    everything = {block.path for block in find_blocks(names)}
    layer = names.index("layer3.2.conv2")
    assert everything - closed_blocks_after_reveal(layer, names, everything) == {
        "layer3",
        "layer3.2",
    }
