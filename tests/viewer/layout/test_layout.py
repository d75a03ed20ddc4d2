from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.messages import Structure
from tests.viewer.fake_training import NETS, FakeTraining
from viewer.layout import NetworkLayout, compute_layout, layers_in_stage_of
from viewer.layout.arcs import MAX_LEVELS, arc_levels
from viewer.layout.folding import initially_closed_blocks
from viewer.layout.paths import MAX_PATHS
from viewer.layout.stages import find_stages, layers_in_same_stage, short_layer_name
from viewer.layout.topology import (
    assign_ranks,
    concatenating_layers,
    forward_edges,
    separate_paths_and_arcs,
)

SIZES = [(1100, 620), (820, 480), (500, 320)]


@cache
def structure(net: str) -> Structure:
    return FakeTraining(net).structure()


@cache
def layout_of(net: str, width: float, height: float) -> NetworkLayout:
    return compute_layout(structure(net), width, height)


@cache
def folded(net: str, width: float = 1100, height: float = 620) -> NetworkLayout:
    """Return the layout of a network as it is shown at first."""
    network = structure(net)
    closed = initially_closed_blocks([layer.name for layer in network.layers])
    return compute_layout(network, width, height, (), closed)


def bounds(layout: NetworkLayout) -> list[tuple[float, float, float, float]]:
    return [(c.left, c.right, c.top, c.bottom) for c in layout.columns]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("net", sorted(NETS))
def test_columns_show_every_filter_once_inside_the_view(net: str, size: tuple[int, int]) -> None:
    network = structure(net)
    layout = compute_layout(network, *size)
    for column, layer in zip(layout.columns, network.layers, strict=True):
        assert column.first[0] == 0
        assert column.first[-1] == len(layer.filter_ids)
        assert np.all(np.diff(column.first) >= 1)
        assert column.left >= -1
        assert column.right <= size[0] + 1
        assert column.top >= layout.top - 8
        assert column.bottom <= size[1] + 1


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("net", sorted(NETS))
def test_columns_do_not_overlap(net: str, size: tuple[int, int]) -> None:
    layout = layout_of(net, *size)
    columns = bounds(layout)
    for i, a in enumerate(columns):
        for b in columns[i + 1 :]:
            apart = a[1] <= b[0] + 1 or b[1] <= a[0] + 1 or a[3] <= b[2] + 1 or b[3] <= a[2] + 1
            assert apart, (net, a, b)


def test_small_networks_use_large_dots_and_large_ones_bars() -> None:
    small, large = (
        layout_of("digits", 1100, 620),
        layout_of("resnet50", 1100, 620),
    )
    assert all(c.bar == 0 and c.size > 10 for c in small.columns)
    assert all(c.bar > 0 for c in large.columns)
    assert sum(c.n for c in large.columns) < 4000
    assert (small.density, large.density) == ("roomy", "crowded")
    assert small.paths.width.min() >= large.paths.width.max()


def test_expanded_layer_shows_every_filter() -> None:
    network = structure("resnet50")
    layout = compute_layout(network, 1100, 620, {"layer4.2.conv3"})
    column = layout.columns[[layer.name for layer in network.layers].index("layer4.2.conv3")]
    assert column.n == 2048
    assert column.bar == 0


def test_headers_beside_a_wide_expanded_layer_overlapped() -> None:
    network = structure("alexnet_head")
    sizes = (1118, 560)
    assert compute_layout(network, *sizes, has_input_output=True).density == "roomy"
    layout = compute_layout(network, *sizes, {"classifier.1"}, has_input_output=True)
    assert layout.density == "normal"
    middles = [(box.left + box.right) / 2 for box in layout.boxes]
    assert np.diff(middles).min() >= 36
    narrow = compute_layout(network, 600, 560, {"classifier.1"}, has_input_output=True)
    assert narrow.density == "crowded"


def test_nodes_cover_all_filters() -> None:
    network = structure("resnet18")
    layout = compute_layout(network, 1100, 620)
    offsets = np.cumsum([0] + [len(layer.filter_ids) for layer in network.layers])
    starts = layout.first_filters(offsets)
    assert starts[0] == 0
    assert np.all(np.diff(starts) >= 1)
    assert len(starts) == layout.node_offsets[-1]


@pytest.mark.parametrize("net", sorted({*NETS} - {"linear"}))  # which has no layer
def test_paths_are_limited_and_point_right(net: str) -> None:
    paths = layout_of(net, 1100, 620).paths
    assert 0 < len(paths.x) <= 1.5 * MAX_PATHS
    assert np.all(paths.x1 > paths.x)
    assert np.all(paths.last > paths.first)


def test_without_edges_layers_form_a_chain() -> None:
    network = structure("alexnet")
    assert forward_edges(network) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert assign_ranks(5, forward_edges(network)) == [0, 1, 2, 3, 4]


def test_parallel_branches_share_ranks() -> None:
    network = structure("inception")
    ranks = assign_ranks(len(network.layers), forward_edges(network))
    at = {layer.name: rank for layer, rank in zip(network.layers, ranks, strict=True)}
    assert at["mixed_a.branch1.0"] == at["mixed_a.branch3.0"] == at["mixed_a.pool.0"] == 1
    assert at["mixed_a.branch5.2"] == 3
    assert at["mixed_b.branch1.0"] == 4


def test_invalid_edges_are_ignored() -> None:
    network = structure("digits")
    broken = Structure(
        "r", 0, 0, "m", network.layers, edges=[(0, 1), (2, 1), (1, 2), (0, 9), (1, 1)]
    )
    assert forward_edges(broken) == [(0, 1), (1, 2)]


def test_shortcuts_are_drawn_as_one_arc_per_end() -> None:
    network = structure("resnet18")
    edges = forward_edges(network)
    path_edges, arcs = separate_paths_and_arcs(edges, assign_ranks(len(network.layers), edges))
    names = [layer.name for layer in network.layers]
    assert (names.index("conv1"), names.index("layer1.1.conv1")) in arcs
    assert (names.index("conv1"), names.index("layer1.0.conv1")) in path_edges
    ends = [end for _, end in arcs]
    assert len(ends) == len(set(ends))


def test_concatenation_keeps_all_arcs_and_sum_the_shortest() -> None:
    network = structure("densenet")
    names = [layer.name for layer in network.layers]
    edges = forward_edges(network)
    ranks = assign_ranks(len(names), edges)
    concatenating = concatenating_layers(network, edges)
    last = names.index("features.denseblock1.denselayer6.conv1")
    assert last in concatenating
    assert not concatenating_layers(structure("resnet18"), forward_edges(structure("resnet18")))
    path_edges, arcs = separate_paths_and_arcs(edges, ranks, concatenating)
    assert len([end for _, end in arcs if end == last]) == 5
    assert len([end for _, end in path_edges if end == last]) == 1


def test_paths_of_a_layer_reach_each_branch() -> None:
    layout = layout_of("inception", 1100, 620)
    from_stem = layout.paths.first < layout.columns[0].n
    for branch in np.flatnonzero(np.array(layout.ranks) == 1):
        column = layout.columns[branch]
        ends = layout.paths.y1[from_stem]
        assert np.any((ends >= column.top) & (ends <= column.bottom))


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("net", sorted(NETS))
def test_paths_run_behind_no_nodes(net: str, is_folded: bool) -> None:
    layout = folded(net) if is_folded else layout_of(net, 1100, 620)
    paths = layout.paths
    for box in layout.boxes:
        is_over = (paths.x < box.left - 2) & (paths.x1 > box.left + 2)
        is_over |= (paths.x < box.right - 2) & (paths.x1 > box.right + 2)
        is_over &= ~((paths.x >= box.left - 2) & (paths.x <= box.right))  # not its own
        is_over &= ~((paths.x1 <= box.right + 2) & (paths.x1 >= box.left))
        low, high = np.minimum(paths.y, paths.y1), np.maximum(paths.y, paths.y1)
        assert not np.any(is_over & (high > box.top) & (low < box.bottom))


def test_paths_of_dots_end_at_dots() -> None:
    """A path that ends between two dots seems to end behind the column."""
    network = structure("alexnet")
    layout = compute_layout(network, 1100, 620)
    for column in layout.columns[1:]:
        near = np.abs(layout.paths.x1 - (column.left + 1)) < column.right - column.left
        assert near.any()
        for y, x in zip(layout.paths.y1[near], layout.paths.x1[near], strict=True):
            at = np.flatnonzero(np.isclose(column.y, y))
            assert len(at)
            assert x <= column.x[at].min()


def test_a_small_layer_is_one_column_as_long_as_the_height_allows() -> None:
    """Two columns of 32 dots would hide the paths of the left one behind the right one."""
    layout = layout_of("gan", 1040, 560)
    assert all(column.nodes_per_row == 1 for column in layout.columns)
    low = layout_of("gan", 1040, 320)
    assert low.columns[0].nodes_per_row > 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("net", [net for net in sorted(NETS) if structure(net).layers[40:]])
def test_closed_blocks_hold_all_nodes_of_their_layers(net: str, size: tuple[int, int]) -> None:
    layout = folded(net, *size)
    for unit, box in zip(layout.units, layout.boxes, strict=True):
        for column in layout.columns[unit.first : unit.end]:
            assert box.left - 1 <= column.left < column.right <= box.right + 1
            assert box.top - 1 <= column.top < column.bottom <= box.bottom + 1
    for i, a in enumerate(layout.boxes):
        for b in layout.boxes[i + 1 :]:
            assert (
                a.right <= b.left + 1
                or b.right <= a.left + 1
                or a.bottom <= b.top
                or b.bottom <= a.top
            )


@pytest.mark.parametrize("net", [net for net in sorted(NETS) if structure(net).layers[40:]])
def test_a_folded_network_has_fewer_nodes_and_fewer_thicker_paths(net: str) -> None:
    """Every snapshot costs in proportion to both."""
    layout, whole = folded(net), layout_of(net, 1100, 620)
    assert layout.density != "crowded"
    assert layout.node_offsets[-1] < 0.75 * whole.node_offsets[-1]
    assert len(layout.paths.x) < 250
    assert len(layout.paths.x) < 0.4 * len(whole.paths.x)
    assert np.median(layout.paths.width) > 2


def test_the_bundle_of_a_block_is_as_thick_as_what_passes() -> None:
    layout = folded("resnet50")
    names = [unit.name for unit in layout.units]
    offsets = layout.node_offsets

    def thickness(name: str) -> float:
        unit = layout.units[names.index(name)]
        inside = (layout.paths.first >= offsets[unit.first]) & (
            layout.paths.first < offsets[unit.end]
        )
        return float(layout.paths.width[inside].sum())

    assert thickness("layer1.1") < thickness("layer2.1") < thickness("layer3.1")


def test_open_blocks_have_frames_where_others_are_closed() -> None:
    network = structure("resnet50")
    closed = initially_closed_blocks([layer.name for layer in network.layers])
    assert [(box.block, box.level) for box in folded("resnet50").stages] == [
        (f"layer{k}", 0) for k in (1, 2, 3, 4)
    ]  # fmt: skip
    layout = compute_layout(network, 1100, 620, (), closed - {"layer3.1"})
    inner = [box for box in layout.stages if box.level]
    assert [box.block for box in inner] == ["layer3.1"]
    outer = next(box for box in layout.stages if box.block == "layer3")
    assert outer.left < inner[0].left < inner[0].right < outer.right
    assert not any(box.level for box in compute_layout(network, 1100, 620).stages)


def test_stage_layers() -> None:
    network = structure("resnet18")
    members = layers_in_stage_of(network, "layer2.0.conv1")
    assert members == [layer.name for layer in network.layers if layer.name.startswith("layer2.")]
    assert layers_in_stage_of(network, "conv1") == ["conv1"]
    assert layers_in_stage_of(structure("digits"), "conv2") == ["conv2"]
    layout = compute_layout(
        structure("resnet50"),
        1100,
        620,
        layers_in_stage_of(structure("resnet50"), "layer3.0.conv1"),
    )
    for column, layer in zip(layout.columns, structure("resnet50").layers, strict=True):
        assert column.left >= -1
        assert column.right <= 1101
        assert (column.n == len(layer.filter_ids)) or not layer.name.startswith("layer3")


def test_stages_are_found_in_module_paths() -> None:
    names = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1"]
    stages = find_stages(names, [0, 1, 2, 3])
    assert [(s.name, s.first_rank, s.last_rank) for s in stages] == [
        ("conv1", 0, 0), ("layer1", 1, 2), ("layer2", 3, 3),
    ]  # fmt: skip
    assert short_layer_name("layer1.0.conv2", stages, names) == "0.conv2"


def test_shared_prefix_is_not_a_stage() -> None:
    names = ["net.features.0", "net.features.3", "net.features.6"]
    assert find_stages(names, [0, 1, 2]) == []
    assert find_stages(["conv1", "conv2", "conv3"], [0, 1, 2]) == []
    deep = ["net.a.0", "net.a.1", "net.b.0"]
    assert [s.name for s in find_stages(deep, [0, 1, 2])] == ["a", "b"]


def test_the_path_of_a_stage_lacked_the_shared_prefix_so_it_could_not_be_removed() -> None:
    names = ["net.a.0", "net.a.1", "net.b.0"]
    assert [s.path for s in find_stages(names, [0, 1, 2])] == ["net.a", "net.b"]
    assert layers_in_same_stage("net.a.1", find_stages(names, [0, 1, 2]), names) == [
        "net.a.0",
        "net.a.1",
    ]


def stage_names(names: list[str], ranks: list[int]) -> list[str]:
    return [stage.name for stage in find_stages(names, ranks)]


def test_auxiliary_classifier_does_not_remove_other_frames() -> None:
    names = ["stem.conv", "mixed.a", "mixed.b.0", "aux.conv", "mixed.b.1", "last.conv"]
    assert stage_names(names, [0, 1, 1, 1, 2, 3]) == ["stem", "mixed", "last"]


def test_interleaved_stages_have_no_frames() -> None:
    names = ["down.0", "down.1", "up.0", "merge.0.a", "up.1", "merge.1.a", "head"]
    assert stage_names(names, list(range(7))) == ["down", "head"]
    assert stage_names(["left.0", "right.0", "left.1", "right.1"], [0, 0, 1, 1]) == []
    stages = find_stages(names, list(range(7)))
    labels = [short_layer_name(name, stages, names) for name in names]
    assert labels == ["0", "1", "up.0", "merge.0.a", "up.1", "merge.1.a", "head"]


def test_stage_of_nearly_all_layers_is_split() -> None:
    names = ["stem"] + [f"trunk.block{k}.{i}" for k in (1, 2, 3) for i in range(4)]
    ranks = list(range(len(names)))
    assert stage_names(names, ranks) == ["stem", "trunk.block1", "trunk.block2", "trunk.block3"]
    stages = find_stages(names, ranks)
    assert layers_in_same_stage("trunk.block2.0", stages, names) == names[5:9]
    assert short_layer_name("trunk.block2.0", stages, names) == "0"
    single = ["stem"] + [f"features.{i}" for i in range(9)]
    assert stage_names(single, list(range(10))) == ["stem", "features"]


def test_third_stage_of_resnet152_is_not_split() -> None:
    blocks = {"layer1": 3, "layer2": 8, "layer3": 36, "layer4": 3}
    names = ["conv1"] + [
        f"{stage}.{i}.conv{k}" for stage, n in blocks.items() for i in range(n) for k in (1, 2, 3)
    ]
    assert stage_names(names, list(range(len(names)))) == ["conv1", *blocks]


def test_index_in_a_list_is_labeled_with_its_list() -> None:
    names = ["net.features.0", "net.features.4"]
    assert [short_layer_name(name, [], names) for name in names] == ["features.0", "features.4"]
    names = ["net.down.0", "net.up.0"]
    assert [short_layer_name(name, [], names) for name in names] == ["down.0", "up.0"]


def test_titles_are_shortened_to_the_same_depth() -> None:
    """``block1`` next to ``trunk_output.block3`` would look like another level."""
    parts = {"block1": 2, "block2": 2, "block3": 7, "block4": 12}
    names = [f"trunk_output.{part}.{i}" for part, n in parts.items() for i in range(n)]
    layers = structure("digits").layers
    chain = Structure("r", 0, 0, "m", [replace(layers[0], name=n) for n in ["stem", *names]])
    layout = compute_layout(chain, 900, 500)
    assert [box.name for box in layout.stages] == ["stem", *parts]
    assert [box.path for box in layout.stages][1:] == [f"trunk_output.{part}" for part in parts]


def test_frames_do_not_cover_columns_outside_their_stage() -> None:
    names = ["down.0", "down.1", "up.0", "merge.0", "up.1", "merge.1", "head"]
    layers = structure("digits").layers
    chain = Structure("r", 0, 0, "m", [replace(layers[0], name=name) for name in names])
    layout = compute_layout(chain, 700, 400)
    assert [box.name for box in layout.stages] == ["down"]
    for box in layout.stages:
        for column, name in zip(layout.columns, names, strict=True):
            outside = column.right < box.left or column.left > box.right
            assert outside != name.startswith(box.path)


def test_shared_label_endings_are_removed() -> None:
    """Otherwise, all layers of a ConvNeXt would be labeled ``block.0``."""
    names = ["features.0.0", *(f"features.{k}.{i}.block.0" for k in range(1, 7) for i in range(3))]
    layers = structure("digits").layers
    chain = Structure("r", 0, 0, "m", [replace(layers[0], name=name) for name in names])
    layout = compute_layout(chain, 1000, 500)
    assert layout.density == "normal"
    assert layout.labels == ["0", *["0", "1", "2"] * 6]


def test_few_filters_have_paths_to_each_branch() -> None:
    """A selected filter needs a path of its own."""
    layers = [
        replace(layer, filter_ids=list(range(16))) for layer in structure("alexnet").layers[:5]
    ]
    edges = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 3), (2, 4)]
    layout = compute_layout(Structure("r", 0, 0, "m", layers, edges=edges), 1000, 500)
    assert np.all(layout.paths.last - layout.paths.first == 1)
    for column, offset in zip(layout.columns[:3], layout.node_offsets, strict=False):
        for node in range(offset, offset + column.n):
            assert (layout.paths.first == node).sum() >= 2


def test_arcs_lie_below_the_arcs_and_columns_that_they_span() -> None:
    """The shortcuts of a U-Net would otherwise coincide at the bottom of the view."""
    assert arc_levels([(1, 8), (2, 7), (3, 6), (9, 12)], range(20)) == [3, 2, 1, 1]
    assert arc_levels([(1, 3), (2, 4), (3, 5)], range(20)) == [1, 1, 1]
    network = structure("digits")
    layers = [replace(network.layers[0], name=f"c{i}") for i in range(7)]
    chain = [(i, i + 1) for i in range(6)]
    flat = compute_layout(
        Structure("r", 0, 0, "m", layers, edges=[*chain, (0, 2), (4, 6)]), 900, 500
    )
    nested = Structure("r", 0, 0, "m", layers, edges=[*chain, (0, 6), (1, 5), (2, 4)])
    layout = compute_layout(nested, 900, 500)
    assert np.all(np.diff(layout.arcs.level) > 5) or np.all(np.diff(layout.arcs.level) < -5)
    assert layout.bottom > flat.bottom
    assert np.all(layout.arcs.level < layout.height)


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("net", sorted(NETS))
def test_arcs_touch_the_layers_they_join_and_nothing_between(net: str, is_folded: bool) -> None:
    layout = folded(net) if is_folded else layout_of(net, 1100, 620)
    arcs, boxes = layout.arcs, layout.boxes
    ends = {(arcs.x0[i], arcs.y0[i]) for i in range(len(arcs.x0))}
    ends |= {(arcs.x1[i], arcs.y1[i]) for i in range(len(arcs.x0))}
    for a, b in layout.connections.arcs:
        assert any(x == boxes[a].right and boxes[a].top < y < boxes[a].bottom for x, y in ends)
        assert any(x == boxes[b].left and boxes[b].top < y < boxes[b].bottom for x, y in ends)
    for i in range(len(arcs.x0)):
        for box in boxes:
            is_below = box.right < arcs.a[i] or box.left > arcs.b[i] or box.bottom < arcs.level[i]
            assert is_below


def test_many_arcs_share_one_line_as_thick_as_what_passes() -> None:
    """Dozens of lines side by side cannot be followed."""
    network = structure("densenet121")
    names = [layer.name for layer in network.layers]
    closed = initially_closed_blocks(names) - {"features.denseblock2"}
    layout = compute_layout(network, 1100, 620, (), closed)
    assert max(arc_levels(layout.connections.arcs, layout.ranks)) > MAX_LEVELS
    shared = (layout.arcs.y0 == layout.arcs.level) & (layout.arcs.y1 == layout.arcs.level)
    widths = layout.arcs.width[shared][np.argsort(layout.arcs.x0[shared])]
    assert len(widths) > 8
    assert np.all(np.diff(widths[1:]) > 0)


def test_network_with_one_filter() -> None:
    layer = structure("digits").layers[0]
    one = Structure("r", 0, 0, "m", [type(layer)("c", "Conv2d", 3, 1, (3, 3), (1, 1), 1, [0])])
    layout = compute_layout(one, 800, 400)
    assert layout.columns[0].n == 1
    assert len(layout.paths.x) == 0
    assert compute_layout(Structure("r", 0, 0, "m", []), 800, 400).columns == []


@pytest.mark.parametrize("width", [500, 820, 1100, 1400])
@pytest.mark.parametrize("net", sorted(NETS))
def test_labels_do_not_overlap_the_next_column(net: str, width: int) -> None:
    layout = layout_of(net, width, 600)
    if layout.density != "normal":
        return
    rank_width = width / (max(layout.ranks) + 1)
    assert rank_width >= 36  # two buttons
    for label in layout.labels:
        assert len(label) * 5 <= rank_width or "." not in label


def test_densenet_labels_keep_only_their_last_parts() -> None:
    network = structure("densenet")
    labels = compute_layout(network, 1117, 600).labels
    name = "features.denseblock1.denselayer1.conv1"
    assert labels[[layer.name for layer in network.layers].index(name)] == "conv1"
    assert compute_layout(network, 880, 480).density == "crowded"


def test_several_columns_had_the_same_label() -> None:
    layout = folded("googlenet", 720, 480)
    assert layout.labels[:3] == ["conv1", "conv2", "conv3"]
    labels = folded("densenet121", 820, 480).labels
    assert len(set(labels)) == len(labels)


def test_a_layer_that_is_a_stage_by_itself_was_titled_twice() -> None:
    layout = folded("resnet50")
    assert layout.density != "crowded"
    assert layout.labels[0] == "conv1"
    assert "conv1" not in [box.name for box in layout.stages]
    crowded = folded("resnet50", 390, 480)  # there, labels are shown on hover only
    assert "conv1" in [box.name for box in crowded.stages]


def test_headers_of_a_roomy_layout_covered_each_other() -> None:
    assert folded("densenet121", 1117, 620).density == "normal"
    assert folded("alexnet", 1117, 620).density == "roomy"


def test_a_layer_of_one_filter_had_one_path_to_all_that_read_it() -> None:
    layout = compute_layout(structure("gan"), 1117, 620)
    lone = int(layout.node_offsets[3])  # the generator's output
    paths = layout.paths.first == lone
    assert paths.sum() >= 4
    assert len(np.unique(layout.paths.y1[paths])) == paths.sum()


def test_concatenated_branches_meet_once_before_all_their_readers() -> None:
    """Paths from each of four branches to each of four readers would all cross."""
    layout = layout_of("googlenet", 1100, 620)
    first = layout.ranks.index(3)
    rank_four = [i for i, rank in enumerate(layout.ranks) if rank == 4]
    right = max(layout.boxes[i].right for i in rank_four)
    next_left = min(layout.boxes[i].left for i, rank in enumerate(layout.ranks) if rank == 5)
    into = (layout.paths.x1 > right) & (layout.paths.x1 < next_left - 2)
    assert layout.ranks[first] == 3
    assert len(set(layout.paths.x1[into])) == 1
    starting = (layout.paths.x > right) & (layout.paths.x < next_left - 2)
    assert starting.sum() > into.sum() > 4


def test_paths_between_parallel_branches_are_limited() -> None:
    """Otherwise, paths to each of four branches of the next module would all cross."""
    layout = layout_of("inception", 1100, 620)
    n_filters = sum(column.n for column in layout.columns)
    assert len(layout.paths.x) < 0.8 * n_filters
