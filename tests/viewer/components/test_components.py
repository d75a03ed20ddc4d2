from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import HoverTool
from msgspec.structs import replace

from revacnn_lightning.protocol.requests import AddFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.test_tab_state import do, settle
from viewer.components.chart_choices import ChartChoices
from viewer.components.edit_markers import EditMarkers
from viewer.components.filter_history import FilterActivation, FilterGradient
from viewer.components.header import Header
from viewer.components.layer_chart import LayerChart, apart
from viewer.components.layer_filters import FilterBars, FilterCloud
from viewer.components.learning_rate import LearningRateChart
from viewer.components.metric_chart import MetricChart
from viewer.components.network import NetworkView
from viewer.components.network_data import _percentiles, amplitude, thickness
from viewer.components.selection_panel import SelectionPanel
from viewer.components.staging_bar import ChangeListPanel, ReplyPanel, StagingBar
from viewer.components.timeline import Timeline
from viewer.glyphs import Command, PageLink
from viewer.layout import NodeState
from viewer.rendering.palette import LIGHT
from viewer.runs.registry import RunRegistry
from viewer.runs.run_follower import RunFollower
from viewer.tab.commands import perform
from viewer.tab.page import Page
from viewer.tab.tab_state import TabState

HTML = [Header, SelectionPanel, StagingBar, ReplyPanel, ChangeListPanel]
CHARTS: list[Callable[..., Any]] = [
    MetricChart, LearningRateChart, LayerChart, FilterGradient, FilterActivation,
]  # fmt: skip


def build(tab: TabState, chart: Callable[..., Any]) -> Any:
    return chart(tab) if chart in (FilterBars, FilterCloud) else chart(tab, EditMarkers(tab).source)


@pytest.mark.parametrize("component", [NetworkView, *HTML])
def test_nothing_new_means_nothing_sent(
    tab: TabState, component: Callable[[TabState], Any]
) -> None:
    part = component(tab)
    part.update()
    assert part.update() is False


@pytest.mark.parametrize("chart", [*CHARTS, FilterBars, FilterCloud])
def test_charts_update_with_new_numbers_only(
    tab: TabState, follower: InProcessFollower, chart: Callable[..., Any]
) -> None:
    part = build(tab, chart)
    assert part.update() is True
    assert part.update() is False
    follower.train()
    assert part.update() is True
    part.restyle(LIGHT)
    data = dict(part.source.data)
    if isinstance(part, LayerChart):  # all curves in one array
        assert data["value"].shape == (len(data["layer"]), len(data.pop("step")))
    assert len({len(column) for column in data.values()}) == 1


@pytest.mark.parametrize("chart", [*CHARTS, FilterBars, FilterCloud])
def test_without_a_run_charts_are_empty(chart: Callable[..., Any]) -> None:
    part = build(TabState(RunFollower(), PageLink()), chart)
    assert part.update() is False


def test_the_network_shows_every_filter(tab: TabState, follower: InProcessFollower) -> None:
    view = NetworkView(tab)
    assert view.update() is True
    data = view.numbers.data
    assert len(view.source.data["x"]) == len(data["amp"]) == 40
    np.testing.assert_array_equal(data["gradient"], follower.state.latest["gradient"])  # type: ignore[union-attr]
    assert data["amp"].min() >= 0
    assert data["amp"].max() <= 1
    assert data["amp"].std() > 0.1
    assert [layer["filters"] for layer in view.headers.data["layers"]] == [8, 16, 16]
    assert view.selection.data["node"] == 0


def test_all_selected_filters_are_told_to_the_network(tab: TabState) -> None:
    view = NetworkView(tab)
    ids = tab.structure.layers[1].filter_ids  # type: ignore[union-attr]
    do(tab, "select", layer=1, first=3, last=3)
    do(tab, "pick", ids=[ids[5], ids[2], ids[9]])
    view.update()

    assert view.selection.data["node"] == 8 + 5
    assert sorted(view.selection.data["also"]) == [8 + 2, 8 + 9]

    do(tab, "select", layer=2, first=0, last=0)
    view.update()
    assert view.selection.data["also"] == []


def test_selected_filters_of_one_strip_share_its_nodes(make_follower: Any) -> None:
    tab = TabState(make_follower("resnet50"), PageLink())
    tab.update()
    view = NetworkView(tab)
    last = len(tab.structure.layers) - 1  # type: ignore[union-attr]
    ids = tab.structure.layers[last].filter_ids  # type: ignore[union-attr]
    do(tab, "select", layer=last, first=0, last=0)
    do(tab, "pick", ids=ids)
    view.update()

    assert view.layout is not None
    first, end = view.layout.node_offsets[last : last + 2]
    assert end - first < len(ids)
    assert view.selection.data["also"] == list(range(int(first), int(end)))


def test_the_network_keeps_keys_over_an_edit(tab: TabState, follower: InProcessFollower) -> None:
    view = NetworkView(tab)
    view.update()
    before = set(view.source.data["key"])
    follower.request(AddFilters("conv2", 2), "add", 0)
    follower.deliver()
    tab.update()
    view.update()
    after = view.source.data["key"]
    assert before < set(after)
    assert len(set(after)) == len(after) == 42
    assert (view.numbers.data["state"] == NodeState.NEW).sum() == 2
    shown = [*view.source.data.values(), *view.numbers.data.values()]
    assert {len(column) for column in shown} == {42}


def test_staged_and_accompanying_filters_are_marked(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("resnet18")
    tab = TabState(follower, PageLink())
    tab.update()
    view = NetworkView(tab)
    tab.select(0, 5)
    perform(tab, Command(None, "stage_remove"))
    follower.deliver()
    tab.update()
    view.update()
    states = view.numbers.data["state"]
    assert (states == NodeState.STAGED).sum() == 1
    assert (states == NodeState.COUPLED).sum() == 2  # conv2 of both blocks of layer1
    staged = int(np.flatnonzero(states == NodeState.STAGED)[0])
    assert view.source.data["layer"][staged] == 0
    assert view.strokes.data["staged"].sum() >= 1


def test_a_layer_that_the_pointer_rests_on_does_not_go_together_with_itself(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    """Its name was left out only where it was the selected one's, too."""
    follower = make_follower("resnet18")
    tab, told = TabState(follower, PageLink()), ""
    view = NetworkView(tab)
    tab.update()
    do(tab, "select", layer=1, first=0, last=0)
    do(tab, "peek", layer=2, first=3)
    for _ in range(3):
        settle(tab, follower)
        view.update()
        told = view.selection.data["company_text"]
    assert told == "goes together with conv1, layer1.1.conv2"


def test_a_large_network_is_binned(make_follower: Callable[..., InProcessFollower]) -> None:
    follower = make_follower("resnet50")
    tab = TabState(follower, PageLink(width=1100, height=600))
    tab.update()
    view = NetworkView(tab)
    view.update()
    assert follower.state is not None
    assert len(view.source.data["x"]) < follower.state.n_filters / 5
    first, last = view.source.data["first"], view.source.data["last"]
    values = follower.state.layer_values("gradient", 0)
    np.testing.assert_allclose(
        view.numbers.data["gradient"][0], values[first[0] : last[0] + 1].mean(), rtol=1e-5
    )


def test_the_view_is_laid_out_for_its_size(tab: TabState) -> None:
    view = NetworkView(tab)
    view.update()
    tab.link.width, tab.link.height = 700, 400
    assert view.update() is True
    assert view.source.data["x"].max() < 700
    assert (view.root.x_range.end, view.root.y_range.start) == (700, 400)


@pytest.mark.parametrize("n", [1, 2, 3, 100, 3412])
def test_percentiles_are_those_of_numpy(n: int) -> None:
    values = np.random.default_rng(n).lognormal(0, 2, n).astype(np.float32)
    expected = np.percentile(values.astype(np.float64), (0, 3.0, 50, 99.3, 100))
    np.testing.assert_allclose(_percentiles(values, (0, 3.0, 50, 99.3, 100)), expected, rtol=1e-6)


def test_amplitude_is_robust() -> None:
    values = np.concatenate([np.geomspace(1e-6, 1e-3, 200), [1e9, np.inf, np.nan, 0.0]])
    found = amplitude(values.astype(np.float32))
    assert np.isfinite(found).all()
    assert 0.2 < found[150] < 0.9
    assert found[-1] == 0
    assert np.all(np.diff(found[:200]) >= 0)
    assert amplitude(np.zeros(4, np.float32)).tolist() == [0, 0, 0, 0]
    assert len(set(amplitude(np.full(4, 3e-3, np.float32)))) == 1


def test_thickness_is_relative_to_the_layer() -> None:
    activation = np.array([0, 0, 0, 0, 1, 10, np.nan, np.inf, 1], np.float32)
    found = thickness(activation, np.array([0, 3, 6, 9]))
    assert found[:3].tolist() == [0, 0, 0]
    assert found[3] == 0
    assert 0 < found[4] < found[5] == 1
    assert found[6:].tolist() == [0, 0, 1]


def test_the_header_tells_the_figures(tab: TabState, follower: InProcessFollower) -> None:
    header = Header(tab)
    header.update()
    data = header.source.data
    fields = {field["label"]: field["value"] for field in data["fields"]}
    assert data["run"] == "here"
    assert data["kind"] == "training"
    assert fields["Layers · filters"] == "3 · 40"
    assert fields["Epoch"] == "1 / 30"
    assert "val acc" in fields
    assert fields["Throughput"] == "20.0 batch/s"


def test_the_header_without_a_run() -> None:
    header = Header(TabState(RunFollower(), PageLink()))
    header.update()
    assert header.source.data["run"] == "none"
    assert header.source.data["fields"] == []


def test_the_staging_bar_shows_plan_company_and_refusal(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("resnet18")
    tab = TabState(follower, PageLink())
    tab.update()
    bar = StagingBar(tab)
    perform(tab, Command(None, "stage_remove"))
    bar.update()
    assert bar.source.data["rows"][0]["plan"] == "asked"
    follower.deliver()
    tab.update()
    bar.update()
    row = bar.source.data["rows"][0]
    assert row["plan"] == "planned"
    assert "parameters (−" in row["detail"]
    assert "layer1.0.conv2 (1)" in row["why"]
    assert "must keep one width" in row["why"]
    assert bar.source.data["can_apply"] is True


def test_a_refused_plan_disables_apply(tab: TabState, follower: InProcessFollower) -> None:
    follower.training.convs[0].refused = "it is special"  # known to the training, not yet to us
    perform(tab, Command(None, "stage_remove"))
    follower.deliver()
    tab.update()
    bar = StagingBar(tab)
    bar.update()
    assert bar.source.data["rows"][0]["refused"] == "it is special"
    assert bar.source.data["can_apply"] is False


def test_replies_are_shown_and_kept(tab: TabState, follower: InProcessFollower) -> None:
    reply, changes = ReplyPanel(tab), ChangeListPanel(tab)
    perform(tab, Command(None, "stage_add"))
    follower.deliver()
    tab.update()
    perform(tab, Command(None, "apply"))
    reply.update()
    assert reply.source.data["state"] == "sent"
    follower.deliver()
    tab.update()
    reply.update()
    changes.update()
    assert reply.source.data["state"] == "applied"
    told = "conv1: 9 filters · the output is unchanged"
    assert reply.source.data["text"].startswith(f"{told} · 3\u202f712 → 3\u202f884 parameters")
    assert "multiply-accumulates (+4.6\u202f%)" in reply.source.data["text"]
    assert changes.source.data["records"][0]["text"] == f"applied at batch 3 · {told}"
    perform(tab, Command(None, "dismiss"))
    reply.update()
    assert reply.source.data == {}
    assert len(changes.source.data["records"]) == 1


def test_edits_are_marked_on_the_time_axes(tab: TabState, follower: InProcessFollower) -> None:
    marks = EditMarkers(tab)
    follower.request(AddFilters("conv1"), "add", 0)
    follower.deliver()
    assert marks.update() is True
    assert marks.source.data["step"].tolist() == [3.0]
    assert marks.source.data["title"] == ["Add 1 to conv1"]
    assert marks.update() is False


def test_the_moment_looked_back_at_is_marked_too(
    tab: TabState, follower: InProcessFollower
) -> None:
    marks = EditMarkers(tab)
    follower.train(5)
    perform(tab, Command(None, "time", {"at": 2}))
    assert marks.update() is True
    assert marks.source.data["step"].tolist() == [3.0]
    assert "batch 3" in marks.source.data["title"][0]
    perform(tab, Command(None, "live"))
    assert marks.update() is True
    assert len(marks.source.data["step"]) == 0


def test_the_time_slider_says_how_much_is_kept(tab: TabState, follower: InProcessFollower) -> None:
    timeline = Timeline(tab)
    timeline.update()
    assert timeline.source.data["kept"].startswith("Recorded is every batch since batch 1.")
    assert follower.state is not None
    follower.train(follower.state.histories.filters.capacity)
    timeline.update()
    assert "every 2 batches" in timeline.source.data["kept"]


def test_a_chart_shows_what_was_chosen(tab: TabState, follower: InProcessFollower) -> None:
    metric, layers, choices = (
        MetricChart(tab, EditMarkers(tab).source),
        LayerChart(tab, EditMarkers(tab).source, 1),
        ChartChoices(tab),
    )
    for part in (metric, layers, choices):
        part.update()
    assert metric.source.data["label"] == ["train", "val_loss"]
    told = choices.source.data["charts"]
    assert [name for name, _ in told[0]["options"]] == ["loss", "acc"]
    assert [chart["current"] for chart in told] == ["loss", "gradient", "activation"]
    perform(tab, Command(None, "chart", {"at": 0, "by": "acc"}))
    perform(tab, Command(None, "chart", {"at": 2, "by": "dead"}))
    assert metric.update() is layers.update() is choices.update() is True
    assert metric.source.data["label"] == ["train_acc", "val_acc"]
    assert type(metric.root.y_scale).__name__ == "LinearScale"
    assert [values[-1] for values in layers.source.data["value"]] == [0.0, 0.0, 0.0]
    perform(tab, Command(None, "chart", {"at": 0, "by": "__class__"}))
    assert metric.update() is False


def test_the_selected_layers_curve_lies_over_those_of_many_others(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    tab = TabState(make_follower("resnet50"), PageLink())
    tab.update()
    do(tab, "select", layer=4, first=0, last=0)
    chart = LayerChart(tab, EditMarkers(tab).source)
    chart.update()
    data = chart.source.data
    assert tab.selection is not None
    assert data["layer"][-1] == tab.selection.layer
    assert sorted(data["layer"]) == sorted(layer.name for layer in tab.structure.layers)  # type: ignore[union-attr]
    assert {len(colour) for colour in data["color"][:-1]} == {9}  # they show through each other
    assert len(data["color"][-1]) == 7
    assert tab.state is not None
    rows = tab.state.histories.layers["gradient"].rows
    np.testing.assert_array_equal(data["value"][-1], rows[:, 4])


@pytest.mark.parametrize("chart", [MetricChart, LearningRateChart, LayerChart])
def test_a_point_of_a_curve_is_told(tab: TabState, chart: Callable[..., Any]) -> None:
    tips = [tool.tooltips for tool in build(tab, chart).root.tools if isinstance(tool, HoverTool)]
    assert any("$snap_x" in tip and "$snap_y" in tip for tip in tips)


def test_a_chart_of_a_thinned_statistic_says_so(tab: TabState, follower: InProcessFollower) -> None:
    chart = LayerChart(tab, EditMarkers(tab).source, 0)
    chart.update()
    assert chart.sampled.text == ""
    taken = follower.training.snapshot()
    thinned = [4 if name == "gradient" else 1 for name in taken.statistics]
    tab.state.receive(replace(taken, sampling_intervals=thinned))  # type: ignore[union-attr]
    chart.update()
    assert chart.sampled.text == "every 4th batch"


def test_the_inspector_explains_what_it_shows(tab: TabState) -> None:
    inspector = SelectionPanel(tab)
    inspector.update()
    data = inspector.source.data
    assert data["layer"] == "conv1"
    assert data["facts"] == "8 filters · 3→8 · 3×3"
    assert "relu1's output" in data["about"]
    assert [value["label"] for value in data["values"]] == ["mean |∇|", "Σ act", "norm", "update"]
    assert data["refused"] == {"add": "", "split": "", "remove": ""}


def test_loss_falls_back_to_a_linear_axis(tab: TabState, follower: InProcessFollower) -> None:
    chart = MetricChart(tab, EditMarkers(tab).source)
    chart.update()
    assert type(chart.root.y_scale).__name__ == "LogScale"
    assert follower.state is not None
    follower.state.histories.scalars.add(99, np.array([-1.0, 20.0]))
    chart.update()
    assert type(chart.root.y_scale).__name__ == "LinearScale"
    assert type(chart.root.yaxis[0]).__name__ == "LinearAxis"


def test_bars_are_sorted_and_a_click_selects(tab: TabState) -> None:
    bars = FilterBars(tab)
    bars.update()
    assert np.all(np.diff(bars.source.data["value"]) <= 0)
    from bokeh.events import Tap

    bars._on_tap(Tap(None, x=2.2, y=0.0))
    assert tab.selected() == (0, int(bars.source.data["filter"][2]))


def test_the_cloud_leaves_out_silent_filters_and_says_so(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.training.silence(3)
    follower.train()
    cloud = FilterCloud(tab)
    cloud.update()
    assert 3 not in cloud.source.data["filter"]
    assert "1 silent" in cloud.root.title.text


def test_two_tabs_share_the_run_and_no_model(follower: InProcessFollower) -> None:
    first, second = Document(), Document()
    Page(follower).open(first)
    Page(follower, "light").open(second)
    assert {root.name for root in first.roots} == {root.name for root in second.roots}
    models = [{model.id for model in document.models} for document in (first, second)]
    assert not models[0] & models[1]


def test_a_closed_tab_is_forgotten(follower: InProcessFollower) -> None:
    document, runs = Document(), RunRegistry()
    page = Page(follower, runs=runs)
    page.open(document)
    remembered = weakref.ref(page)
    assert list(runs.observers) == [page]
    document.clear()
    del page, document
    gc.collect()
    assert remembered() is None
    assert list(runs.observers) == []


def test_a_page_sends_only_on_credit(
    follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("viewer.tab.page.time.monotonic", lambda: clock[0])
    page = Page(follower)
    page.link.seen = 0

    def step(seconds: float) -> int:
        clock[0] += seconds
        follower.train()
        page.update()
        return page.sent

    assert step(0.1) == 1
    assert step(0.1) == 1  # not painted yet
    page.link.seen = 1
    assert step(0.03) == 2  # a little early
    page.link.seen = 2
    assert step(0.01) == 2  # too early: so many a second on average
    assert step(0.1) == 3
    assert step(1.0) == 3
    assert step(5.0) == 4  # the answer was lost
    page.link.seen, page.link.visible = 4, False
    assert step(60.0) == 4  # nobody looks


def test_an_edited_network_is_sent_before_the_page_has_painted_the_last_numbers(
    follower: InProcessFollower,
) -> None:
    page, document = Page(follower), Document()
    page.open(document)
    page.link.seen = 0
    follower.train()
    page.update()
    follower.request(AddFilters("conv1"), "add", 0)
    page.update()
    assert page.sent == 1  # nothing is applied yet

    follower.deliver()
    page.update()

    assert page.sent == 2
    assert page.network.headers.data["layers"][0]["filters"] == 9
    page.link.seen = 1  # of the two that are on their way
    follower.train()
    page.update()
    assert page.sent == 2


def test_numbers_do_not_wait_for_the_pictures_of_the_layer(
    follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, document = Page(follower), Document()
    page.open(document)
    page.link.seen = 0
    drawn: list[str] = []
    for part in page.pictures:
        monkeypatch.setattr(part, "update", lambda: drawn.append("picture") or True)

    follower.train()
    page.update()
    page._update_besides()
    assert (page.sent, drawn) == (1, [])  # the numbers are not painted yet

    page.link.seen = 1
    page._update_besides()
    assert drawn
    drawn.clear()
    page._on_command(Command(page.link, "sort", {"by": "index"}))
    assert not drawn
    page._on_command(Command(page.link, "select", {"layer": 1, "first": 3}))
    assert drawn  # what was asked for is shown at once


def test_what_is_new_is_sent_as_soon_as_it_may_be(follower: InProcessFollower) -> None:
    page, document = Page(follower), Document()
    page.open(document)

    def asked() -> list[str]:
        """What is to be called at the next tick; forgotten."""
        known = list(document.session_callbacks)
        for callback in known:
            document.remove_next_tick_callback(callback)
        return [callback.callback.__qualname__ for callback in known]

    follower.train()
    page.on_update()
    assert asked() == []  # the page has not come yet
    page.link.seen = 0
    assert asked() == ["Page.update"]
    page.update()
    page.on_update()
    assert asked() == []  # not painted yet
    page.link.seen = 1
    assert asked() == ["Page._update_besides"]  # nothing else is new
    follower.train()
    page.link.visible = False
    page._asked_for = False
    page.update()
    assert page.sent == 1  # hidden in the meantime


def test_drawn_plainly_the_network_has_no_glyph_of_our_own(
    make_follower: Callable[..., Any],
) -> None:
    follower = make_follower("resnet50")
    tab = TabState(follower, PageLink(plain=True, width=1100, height=600))
    tab.update()
    view = NetworkView(tab)
    view.update()
    assert view.plain is not None
    modules = {renderer.glyph.__module__ for renderer in view.root.renderers}
    assert all(module.startswith("bokeh.") for module in modules)
    nodes, paths = view.plain.nodes.data, view.plain.paths.data
    assert {len(column) for column in nodes.values()} == {len(view.source.data["x"])}
    assert {len(column) for column in paths.values()} == {len(view.flow.data["x"])}
    bars = nodes["width"] > 0
    assert bars.any()
    assert not ((nodes["size"] > 0) & bars).any()  # a bar, or a dot
    assert ((nodes["height"] > 0) == bars).all()


def test_names_of_curves_that_end_together_are_not_written_over_each_other() -> None:
    wanted = np.array([50.0, 52.0, 20.0, 51.0, 120.0])

    placed = apart(wanted, 11.0, 130.0)

    assert np.allclose(placed, [40.0, 62.0, 20.0, 51.0, 120.0])
    assert (np.argsort(placed) == np.argsort(wanted)).all()


@pytest.mark.parametrize("n", [0, 1, 2, 8])
def test_names_that_have_room_stay_at_their_curves(n: int) -> None:
    wanted = np.random.default_rng(n).permutation(10 + 20.0 * np.arange(n))

    assert np.allclose(apart(wanted, 11.0, 200.0), wanted)
    crowded = apart(wanted / 100, 11.0, 200.0)
    assert (np.diff(np.sort(crowded)) >= 11 - 1e-9).all()


def test_names_of_curves_that_end_at_the_edge_of_the_chart_are_not_cut_off() -> None:
    placed = apart(np.array([130.0, 129.0, 0.0]), 11.0, 130.0)

    assert np.allclose(placed, [124.5, 113.5, 5.5])


def test_charts_come_one_by_one_and_only_with_something_new(
    follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, document = Page(follower), Document()
    page.open(document)
    page.link.seen = 0
    clock = [100.0]
    monkeypatch.setattr("viewer.tab.page.time.monotonic", lambda: clock[0])
    sent: list[Any] = []
    document.on_change(lambda event: sent.append(getattr(event, "model", None)))

    def step(seconds: float) -> bool:
        """Whether a chart was sent after this time."""
        clock[0] += seconds
        sent.clear()
        page._update_besides()
        return page.link in sent

    assert not step(1.0)  # nothing is new
    follower.train()
    assert step(1.0)
    assert not step(0.01)  # too soon
    assert [step(1.0) for _ in range(4)] == [True, True, True, False]  # each has had its turn


@pytest.mark.filterwarnings("error")
def test_names_of_curves_stay_in_the_chart_when_a_gradient_is_infinite(tab: TabState) -> None:
    chart = LayerChart(tab, EditMarkers(tab).source)
    values = np.array([[0.1, 0.2, np.inf], [0.3, np.nan, 0.2], [0.3, 0.2, 0.2]], np.float32)
    last = values[1:, -1]
    shifts = chart._shifts(values, last)
    assert np.isfinite(shifts).all()
    assert abs(shifts[1] - shifts[0]) >= 11.0
