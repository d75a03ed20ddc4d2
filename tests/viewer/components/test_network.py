from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from revacnn_lightning.protocol.requests import AddFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.network import NetworkView
from viewer.components.network_data import _percentiles, normalize_gradients, relative_activation
from viewer.layout import NodeState
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState


def test_network_shows_every_filter(tab: TabState, follower: InProcessFollower) -> None:
    view = NetworkView(tab)
    assert view.update() is True
    data = view.numbers.data
    assert len(view.nodes.data["x"]) == len(data["amplitude"]) == 40
    np.testing.assert_array_equal(data["gradient"], follower.state.latest["gradient"])  # type: ignore[union-attr]
    assert data["amplitude"].min() >= 0
    assert data["amplitude"].max() <= 1
    assert data["amplitude"].std() > 0.1
    assert [layer["filters"] for layer in view.network_layout.data["layers"]] == [8, 16, 16]
    assert view.selection.data["node"] == 0


def test_each_tab_computed_again_what_all_show_of_a_batch(
    tab: TabState, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(gradient: np.ndarray) -> np.ndarray:
        calls.append(len(gradient))
        return normalize_gradients(gradient)

    monkeypatch.setattr("viewer.components.network.normalize_gradients", counted)
    other = TabState(follower, PageLink(width=300, height=150))
    views = [NetworkView(tab), NetworkView(TabState(follower, PageLink())), NetworkView(other)]
    for batches in range(1, 3):
        follower.train()
        for view in views:
            view.tab.update()
            view.update()
        first, same, narrow = (view.numbers.data["amplitude"] for view in views)
        assert first is same
        np.testing.assert_array_equal(first, normalize_gradients(views[0].numbers.data["gradient"]))
        sizes = {len(first), len(narrow)}  # a smaller view may have fewer nodes
        assert len(calls) == batches * len(sizes)


def test_network_shows_all_selected_filters(tab: TabState) -> None:
    view = NetworkView(tab)
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    send_command(tab, "select_largest_gradient_filter", layer=1, first=3, last=3)
    send_command(tab, "select_filters_by_id", ids=[ids[5], ids[2], ids[9]])
    view.update()

    assert view.selection.data["node"] == 8 + 5
    assert sorted(view.selection.data["also"]) == [8 + 2, 8 + 9]

    send_command(tab, "select_largest_gradient_filter", layer=2, first=0, last=0)
    view.update()
    assert view.selection.data["also"] == []


def test_selected_filters_of_one_strip_share_its_nodes(make_follower: Any) -> None:
    tab = TabState(make_follower("resnet50"), PageLink())
    tab.update()
    view = NetworkView(tab)
    last = len(tab.structure.layers) - 1  # type: ignore[union-attr]
    ids = tab.structure.layers[last].filter_ids  # type: ignore[union-attr]
    send_command(tab, "select_largest_gradient_filter", layer=last, first=0, last=0)
    send_command(tab, "select_filters_by_id", ids=ids)
    view.update()

    assert view.layout is not None
    first, end = view.layout.node_offsets[last : last + 2]
    assert end - first < len(ids)
    assert view.selection.data["also"] == list(range(int(first), int(end)))


def test_node_keys_survive_an_edit(tab: TabState, follower: InProcessFollower) -> None:
    view = NetworkView(tab)
    view.update()
    before = set(view.nodes.data["key"])
    follower.request(AddFilters("conv2", 2), "add", 0)
    follower.deliver()
    tab.update()
    view.update()
    after = view.nodes.data["key"]
    assert before < set(after)
    assert len(set(after)) == len(after) == 42
    assert (view.numbers.data["state"] == NodeState.NEW).sum() == 2
    shown = [*view.nodes.data.values(), *view.numbers.data.values()]
    assert {len(column) for column in shown} == {42}


def test_staged_and_coupled_filters_are_marked(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("resnet18")
    tab = TabState(follower, PageLink())
    tab.update()
    view = NetworkView(tab)
    tab.select(0, 5)
    send_command(tab, "toggle_staged_removal")
    follower.deliver()
    tab.update()
    view.update()
    states = view.numbers.data["state"]
    assert (states == NodeState.STAGED).sum() == 1
    assert (states == NodeState.COUPLED).sum() == 2  # conv2 of both blocks of layer1
    staged = int(np.flatnonzero(states == NodeState.STAGED)[0])
    assert view.nodes.data["layer"][staged] == 0
    assert view.strokes.data["staged"].sum() >= 1


def test_coupling_text_omits_the_hovered_layer(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    """The name of the hovered layer is left out, even where it is not the selected one."""
    follower = make_follower("resnet18")
    tab, text = TabState(follower, PageLink()), ""
    view = NetworkView(tab)
    tab.update()
    send_command(tab, "select_largest_gradient_filter", layer=1, first=0, last=0)
    send_command(tab, "hover_filter", layer=2, first=3)
    for _ in range(3):
        deliver_replies(tab, follower)
        view.update()
        text = view.selection.data["coupling_text"]
    assert text == "coupled with conv1, layer1.1.conv2"


def test_large_network_is_binned(make_follower: Callable[..., InProcessFollower]) -> None:
    follower = make_follower("resnet50")
    tab = TabState(follower, PageLink(width=1100, height=600))
    tab.update()
    view = NetworkView(tab)
    view.update()
    assert follower.state is not None
    assert len(view.nodes.data["x"]) < follower.state.n_filters / 5
    first, last = view.nodes.data["first"], view.nodes.data["last"]
    values = follower.state.layer_values("gradient", 0)
    np.testing.assert_allclose(
        view.numbers.data["gradient"][0], values[first[0] : last[0] + 1].mean(), rtol=1e-5
    )


def test_layout_fits_the_view_size(tab: TabState) -> None:
    view = NetworkView(tab)
    view.update()
    tab.link.width, tab.link.height = 700, 400
    assert view.update() is True
    assert view.nodes.data["x"].max() < 700
    assert (view.root.data["width"], view.root.data["height"]) == (700, 400)


@pytest.mark.parametrize("n", [1, 2, 3, 100, 3412])
def test_percentiles_equal_numpy(n: int) -> None:
    values = np.random.default_rng(n).lognormal(0, 2, n).astype(np.float32)
    expected = np.percentile(values.astype(np.float64), (0, 3.0, 50, 99.3, 100))
    np.testing.assert_allclose(_percentiles(values, (0, 3.0, 50, 99.3, 100)), expected, rtol=1e-6)


def test_amplitude_is_robust_to_outliers() -> None:
    values = np.concatenate([np.geomspace(1e-6, 1e-3, 200), [1e9, np.inf, np.nan, 0.0]])
    found = normalize_gradients(values.astype(np.float32))
    assert np.isfinite(found).all()
    assert 0.2 < found[150] < 0.9
    assert found[-1] == 0
    assert np.all(np.diff(found[:200]) >= 0)
    assert normalize_gradients(np.zeros(4, np.float32)).tolist() == [0, 0, 0, 0]
    assert len(set(normalize_gradients(np.full(4, 3e-3, np.float32)))) == 1


def test_relative_activation_is_relative_to_the_layer() -> None:
    activation = np.array([0, 0, 0, 0, 1, 10, np.nan, np.inf, 1], np.float32)
    found = relative_activation(activation, np.array([0, 3, 6, 9]))
    assert found[:3].tolist() == [0, 0, 0]
    assert found[3] == 0
    assert 0 < found[4] < found[5] == 1
    assert found[6:].tolist() == [0, 0, 1]


def test_paths_of_a_layer_with_negative_sums_were_not_drawn() -> None:
    activation = np.array([-5, 0, 0, -4, -2, -1], np.float32)
    found = relative_activation(activation, np.array([0, 1, 3, 6]))
    assert found[:4].tolist() == [1, 0, 0, 1]
    assert found[3] > found[4] > found[5] > 0


def test_every_column_has_a_row_per_node_or_path(make_follower: Callable[..., Any]) -> None:
    follower = make_follower("resnet50")
    tab = TabState(follower, PageLink(width=1100, height=600))
    tab.update()
    view = NetworkView(tab)
    view.update()
    nodes, paths = view.nodes.data, view.paths.data
    strokes = {**view.strokes.data}
    assert len(strokes.pop("arc_weight")) == len(view.arcs.data["x0"]) > 0
    assert {len(column) for column in (*nodes.values(), *view.numbers.data.values())} == {
        len(nodes["x"])
    }
    assert {len(column) for column in (*paths.values(), *strokes.values())} == {len(paths["x"])}
    assert (nodes["bar"] > 0).any()
    assert (nodes["size"] > 0).all()


def test_closed_blocks_have_headers_and_their_layers_none(
    make_follower: Callable[..., Any],
) -> None:
    tab = TabState(make_follower("densenet121"), PageLink(width=1100, height=600))
    tab.update()
    view = NetworkView(tab)
    view.update()
    header = view.network_layout.data
    assert [(block["path"], block["layers"]) for block in header["blocks"]] == [
        (f"features.denseblock{k}", n) for k, n in ((1, 12), (2, 24), (3, 48), (4, 32))
    ]
    shown = [layer["name"] for layer in header["layers"] if layer["block"] < 0]
    assert shown == ["features.conv0", *(f"features.transition{k}.conv" for k in (1, 2, 3))]
    assert header["layers"][1]["block"] == 0
    assert len(header["layers"]) == 120


def test_a_filter_in_a_closed_block_is_shown_as_selected(
    make_follower: Callable[..., Any],
) -> None:
    tab = TabState(make_follower("resnet50"), PageLink(width=1100, height=600))
    tab.update()
    view = NetworkView(tab)
    send_command(tab, "select_largest_gradient_filter", layer=9, first=5, last=5)
    view.update()
    assert tab.folding.is_hidden(9, tab.layer_names())
    node = view.selection.data["node"]
    data = view.nodes.data
    assert data["layer"][node] == 9
    assert data["first"][node] <= 5 <= data["last"][node]


@pytest.mark.parametrize(("width", "last"), [(1100, "…er12"), (390, "…2")])
def test_labels_of_closed_blocks_do_not_overlap(
    make_follower: Callable[..., Any], width: int, last: str
) -> None:
    tab = TabState(make_follower("densenet121"), PageLink(width=width, height=600))
    tab.update()
    view = NetworkView(tab)
    send_command(tab, "open_block", name="features.denseblock2")
    view.update()
    header = view.network_layout.data["blocks"][12]
    assert header["path"] == "features.denseblock2.denselayer12"
    assert header["label"] == last
