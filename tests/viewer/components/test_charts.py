from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.events import Tap
from bokeh.models import BoxAnnotation, DataRange1d, HoverTool
from msgspec.structs import replace

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.protocol.requests import AddFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.chart_choices import ChartChoicesPanel
from viewer.components.edit_markers import EditMarkers
from viewer.components.filter_history import FilterActivationChart, FilterGradientChart
from viewer.components.layer_chart import LayerChart
from viewer.components.layer_filters import FilterBarChart, FilterScatterChart
from viewer.components.learning_rate import LearningRateChart
from viewer.components.metric_chart import MetricChart
from viewer.components.time_axis import style_time_axis
from viewer.rendering.palette import LIGHT
from viewer.runs.run_follower import RunFollower
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState

CHARTS: list[Callable[..., Any]] = [
    MetricChart, LearningRateChart, LayerChart, FilterGradientChart, FilterActivationChart,
]  # fmt: skip


def build(tab: TabState, chart: Callable[..., Any]) -> Any:
    return (
        chart(tab)
        if chart in (FilterBarChart, FilterScatterChart)
        else chart(tab, EditMarkers(tab).source)
    )


def hover_tools(chart: Any) -> list[HoverTool]:
    return [tool for tool in chart.root.tools if isinstance(tool, HoverTool)]


@pytest.mark.parametrize("chart", [*CHARTS, FilterBarChart, FilterScatterChart])
def test_charts_update_only_with_new_statistics(
    tab: TabState, follower: InProcessFollower, chart: Callable[..., Any]
) -> None:
    component = build(tab, chart)
    assert component.update() is True
    assert component.update() is False
    follower.train()
    assert component.update() is True
    component.restyle(LIGHT)
    data = dict(component.source.data)
    if isinstance(component, LayerChart):  # all curves in one array
        assert data["value"].shape == (len(data["layer"]), len(data.pop("step")))
    assert len({len(column) for column in data.values()}) == 1


@pytest.mark.parametrize("chart", CHARTS)
def test_the_page_sent_the_ends_of_each_axis_with_each_update(
    tab: TabState, chart: Callable[..., Any]
) -> None:
    component = build(tab, chart)
    for is_log in (True, False, True):
        component.set_log_scale(is_log)
        axes = component.root.x_range, component.root.y_range
        assert not any(axis.syncable for axis in axes)


@pytest.mark.parametrize("chart", [*CHARTS, FilterBarChart, FilterScatterChart])
def test_charts_without_a_run_are_empty(chart: Callable[..., Any]) -> None:
    component = build(TabState(RunFollower(), PageLink()), chart)
    assert component.update() is False


def test_edits_are_marked_on_the_time_axes(tab: TabState, follower: InProcessFollower) -> None:
    markers = EditMarkers(tab)
    follower.request(AddFilters("conv1"), "add", 0)
    follower.deliver()
    assert markers.update() is True
    assert markers.source.data["step"].tolist() == [3.0]
    assert markers.source.data["title"] == ["Add 1 to conv1"]
    assert markers.update() is False


def test_shown_past_batch_is_marked(tab: TabState, follower: InProcessFollower) -> None:
    markers = EditMarkers(tab)
    follower.train(5)
    send_command(tab, "show_moment", row=2)
    assert markers.update() is True
    assert markers.source.data["step"].tolist() == [3.0]
    assert "batch 3" in markers.source.data["title"][0]
    send_command(tab, "go_live")
    assert markers.update() is True
    assert len(markers.source.data["step"]) == 0


@pytest.mark.parametrize("chart", CHARTS)
def test_charts_are_dimmed_after_the_shown_batch_and_keep_their_range(
    tab: TabState, follower: InProcessFollower, chart: Callable[..., Any]
) -> None:
    markers = EditMarkers(tab)
    drawn = chart(tab, markers.source)
    [dimmed] = [one for one in drawn.root.center if isinstance(one, BoxAnnotation)]
    follower.request(AddFilters("conv1"), "add", 0)
    follower.deliver()
    follower.train(5)
    assert dimmed.visible is False
    send_command(tab, "show_moment", row=2)
    markers.update()
    assert (dimmed.visible, dimmed.left) == (True, 3)
    # Whatever a glyph draws extends the range of the axis.
    assert max(np.max(markers.source.data[name]) for name in ("step", "past")) < 10
    send_command(tab, "go_live")
    markers.update()
    assert dimmed.visible is False


def test_a_training_with_several_losses_shows_them_as_its_loss(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    chart = MetricChart(tab, EditMarkers(tab).source)
    follower.state.histories.metrics.clear()
    for step in range(10, 13):
        snapshot = follower.training.snapshot()
        metrics = {"d_loss": 0.5, "g_loss": 2.0, "fid": 90.0}
        follower.state.receive(replace(snapshot, step=step, loss=None, metrics=metrics))
    follower.state.histories.scalars.rows[:, 0] = np.nan  # as if no loss had been published at all
    chart.update()
    assert set(chart.source.data["label"]) == {"d_loss", "g_loss"}


def test_shares_have_an_axis_from_zero_to_what_is_there(
    tab: TabState, follower: InProcessFollower
) -> None:
    chart = LayerChart(tab, EditMarkers(tab).source)
    send_command(tab, "set_chart", chart=1, option="dead")
    follower.train(3)
    chart.update()
    assert isinstance(chart.root.y_range, DataRange1d)  # of the values, and at least 10 % high
    assert (chart.root.y_range.start, chart.root.y_range.default_span) == (0, 0.2)
    assert not chart.is_log
    send_command(tab, "set_chart", chart=1, option="gradient")
    chart.update()
    assert np.isnan(chart.root.y_range.start)


def test_set_chart_changes_what_a_chart_shows(tab: TabState, follower: InProcessFollower) -> None:
    follower.train(DEAD_BATCHES)
    metric, layers, choices = (
        MetricChart(tab, EditMarkers(tab).source),
        LayerChart(tab, EditMarkers(tab).source, 1),
        ChartChoicesPanel(tab),
    )
    for component in (metric, layers, choices):
        component.update()
    assert metric.source.data["label"] == ["train", "val_loss"]
    charts = choices.source.data["charts"]
    assert [name for name, _ in charts[0]["options"]] == ["loss", "acc"]
    assert [chart["current"] for chart in charts] == ["loss", "gradient", "activation"]
    send_command(tab, "set_chart", chart=0, option="acc")
    send_command(tab, "set_chart", chart=2, option="dead")
    assert metric.update() is layers.update() is choices.update() is True
    assert metric.source.data["label"] == ["train_acc", "val_acc"]
    assert type(metric.root.y_scale).__name__ == "LinearScale"
    assert all(0 <= values[-1] < 1 for values in layers.source.data["value"])
    send_command(tab, "set_chart", chart=0, option="__class__")
    assert metric.update() is False


def test_selected_layer_is_drawn_over_many_others(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    tab = TabState(make_follower("resnet50"), PageLink())
    tab.update()
    send_command(tab, "select_largest_gradient_filter", layer=4, first=0, last=0)
    chart = LayerChart(tab, EditMarkers(tab).source)
    chart.update()
    data = chart.source.data
    assert tab.selection is not None
    assert data["layer"][-1] == tab.selection.layer
    assert sorted(data["layer"]) == sorted(layer.name for layer in tab.structure.layers)  # type: ignore[union-attr]
    assert {len(color) for color in data["color"][:-1]} == {9}  # translucent
    assert len(data["color"][-1]) == 7
    assert tab.state is not None
    rows = tab.state.histories.layers["gradient"].rows
    np.testing.assert_array_equal(data["value"][-1], rows[:, 4])


@pytest.mark.parametrize("chart", [MetricChart, LearningRateChart, LayerChart])
def test_curves_have_value_and_batch_tooltips(tab: TabState, chart: Callable[..., Any]) -> None:
    tooltips = [tool.tooltips for tool in hover_tools(build(tab, chart))]
    assert any("$snap_x" in text and "$snap_y" in text for text in tooltips)


@pytest.mark.parametrize("chart", CHARTS)
def test_edit_markers_have_tooltips_only_near_the_pointer(
    tab: TabState, chart: Callable[..., Any]
) -> None:
    """Bokeh hits all spans of a chart in "vline" mode, and those within their width otherwise."""
    tools = hover_tools(build(tab, chart))
    assert "@title" in tools[0].tooltips  # tooltips of curves are drawn over it
    assert not any("@title" in tool.tooltips for tool in tools[1:])
    (area,) = tools[0].renderers
    assert tools[0].mode == "mouse"
    assert area.glyph.line_width == 5
    assert area.glyph.line_alpha == 0


@pytest.mark.parametrize("chart", [*CHARTS, FilterBarChart, FilterScatterChart])
@pytest.mark.skipif("limit" not in HoverTool.properties(), reason="Bokeh 3.8 adds the limit")
def test_every_hover_tool_shows_few_tooltips(tab: TabState, chart: Callable[..., Any]) -> None:
    for tool in hover_tools(build(tab, chart)):
        assert tool.limit is not None
        assert tool.limit <= 3


def test_layer_chart_shows_the_sampling_interval(
    tab: TabState, follower: InProcessFollower
) -> None:
    chart = LayerChart(tab, EditMarkers(tab).source, 0)
    chart.update()
    assert chart.sampling_label.text == ""
    follower.training.step += 1
    snapshot = follower.training.snapshot()
    intervals = [4 if name == "gradient" else 1 for name in snapshot.statistics]
    tab.state.receive(replace(snapshot, sampling_intervals=intervals))  # type: ignore[union-attr]
    chart.update()
    assert chart.sampling_label.text == "every 4th batch"


def test_negative_loss_uses_a_linear_axis(tab: TabState, follower: InProcessFollower) -> None:
    chart = MetricChart(tab, EditMarkers(tab).source)
    chart.update()
    assert type(chart.root.y_scale).__name__ == "LogScale"
    assert follower.state is not None
    follower.state.histories.scalars.add(99, np.array([-1.0, 20.0, 1.0, 5.0]))
    chart.update()
    assert type(chart.root.y_scale).__name__ == "LinearScale"
    assert type(chart.root.yaxis[0]).__name__ == "LinearAxis"


def test_bars_are_sorted_and_selectable(tab: TabState) -> None:
    bars = FilterBarChart(tab)
    bars.update()
    assert np.all(np.diff(bars.source.data["value"]) <= 0)
    bars._on_tap(Tap(None, x=2.2, y=0.0))
    assert tab.selected_position() == (0, int(bars.source.data["filter"][2]))


def test_cloud_hides_and_counts_inactive_filters(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.training.deactivate_filter(3)
    follower.train()
    cloud = FilterScatterChart(tab)
    cloud.update()
    assert 3 not in cloud.source.data["filter"]
    assert "not shown: 1 silent in this batch" in cloud.root.title.text


@pytest.mark.filterwarnings("error")
def test_infinite_gradient_does_not_break_label_positions(tab: TabState) -> None:
    chart = LayerChart(tab, EditMarkers(tab).source)
    values = np.array([[0.1, 0.2, np.inf], [0.3, np.nan, 0.2], [0.3, 0.2, 0.2]], np.float32)
    last = values[1:, -1]
    shifts = chart.labels.label_shifts(values, last, is_log=True)
    assert np.isfinite(shifts).all()
    assert abs(shifts[1] - shifts[0]) >= 11.0


@pytest.mark.parametrize("chart", CHARTS)
def test_bokeh_compiles_no_text_of_a_chart(tab: TabState, chart: Callable[..., Any]) -> None:
    """The page's policy forbids it: charts had no labels at their ticks."""
    document = Document()
    document.add_root(build(tab, chart).root)
    style_time_axis(document.roots[0].below[0], "time")  # type: ignore[attr-defined]
    document.to_json()
    models = [one for one in document.models if hasattr(one, "code")]
    assert len(models) > 2
    assert {one.code for one in models} <= {"numbers", "durations", "report"}  # chart_functions.js
