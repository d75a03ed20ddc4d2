"""What all charts over time have in common: the x axis, the scale, smoothing, and a second run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bokeh.models import AdaptiveTicker, PanTool, WheelZoomTool

from revacnn_lightning.protocol.connection_file import Connection
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.chart import moving_average
from viewer.components.chart_choices import ChartChoicesPanel
from viewer.components.chart_export import ChartCsvExport
from viewer.components.edit_markers import EditMarkers
from viewer.components.end_labels import LABEL_HEIGHT
from viewer.components.filter_history import FilterActivationChart, FilterGradientChart
from viewer.components.layer_chart import LayerChart
from viewer.components.layer_filters import FilterScatterChart
from viewer.components.learning_rate import LearningRateChart
from viewer.components.metric_chart import MetricChart
from viewer.runs.registry import RunRegistry
from viewer.runs.run_follower import RunFollower
from viewer.runs.run_state import RunState
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState

CHARTS: list[Callable[..., Any]] = [
    MetricChart, LearningRateChart, LayerChart, FilterGradientChart, FilterActivationChart,
]  # fmt: skip


def build(tab: TabState, chart: Callable[..., Any]) -> Any:
    return chart(tab, EditMarkers(tab).source)


class OtherRun(RunRegistry):
    """A registry that knows one more run, without sockets."""

    def __init__(self, other: InProcessFollower) -> None:
        super().__init__()
        self.other = other

    def known_runs(self) -> list[Connection]:
        return [self.other.state.connection]  # type: ignore[union-attr]

    def state(self, run: str) -> RunState | None:
        return self.other.state

    def find_follower(self, run: str = "") -> RunFollower | None:
        return None


@pytest.fixture
def compared(make_follower: Callable[..., InProcessFollower]) -> TabState:
    """A tab that lays a second run of five batches over its own of three."""
    other = make_follower(batches=5)
    assert other.state is not None
    other.state.connection = Connection("other", "", "", "", model="OtherNet")
    tab = TabState(make_follower(), PageLink(), registry=OtherRun(other))
    tab.update()
    send_command(tab, "compare_run", run="other")
    return tab


def x_of(chart: Any) -> np.ndarray:
    """Return the x values of the chart's first curve."""
    steps = chart.source.data["step"]
    return np.asarray(steps[0] if isinstance(steps, list) else steps)


@pytest.mark.parametrize("chart", CHARTS)
def test_curves_are_drawn_over_batches_epochs_or_time(
    tab: TabState, follower: InProcessFollower, chart: Callable[..., Any]
) -> None:
    component = build(tab, chart)
    component.update()
    batches = x_of(component)
    assert follower.state is not None
    clock = follower.state.histories.clock
    for axis, expected in (("epoch", clock.epochs(batches)), ("time", clock.seconds(batches))):
        send_command(tab, "set_x_axis", option=axis)
        assert component.update() is True
        np.testing.assert_allclose(x_of(component), expected, rtol=1e-5)
    assert isinstance(component.root.xaxis[0].ticker, AdaptiveTicker)
    send_command(tab, "set_x_axis", option="batch")
    component.update()
    np.testing.assert_array_equal(x_of(component), batches)


def test_edit_markers_move_with_the_x_axis(tab: TabState, follower: InProcessFollower) -> None:
    markers = EditMarkers(tab)
    send_command(tab, "show_moment", row=1)
    markers.update()
    step = markers.source.data["step"]
    send_command(tab, "set_x_axis", option="epoch")
    assert markers.update() is True
    assert follower.state is not None
    expected = follower.state.histories.clock.epochs(step)
    np.testing.assert_allclose(markers.source.data["step"], expected)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_scale_can_be_chosen(tab: TabState, chart: Callable[..., Any]) -> None:
    component = build(tab, chart)
    component.update()
    for scale in ("linear", "log", "linear"):
        send_command(tab, "set_y_axis_scale", name=component.name, option=scale)
        assert component.update() is True
        assert component.is_log is (scale == "log")


def test_a_logarithmic_scale_leaves_out_what_is_not_positive(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    follower.state.histories.scalars.add(99, np.array([-1.0, 20.0, 1.0, 5.0]))
    chart = build(tab, MetricChart)
    send_command(tab, "set_y_axis_scale", name="loss", option="log")
    chart.update()
    assert chart.is_log
    assert np.isnan(chart.source.data["value"][0][-1])


def test_a_scale_without_positive_values_stays_linear(tab: TabState) -> None:
    chart = build(tab, LayerChart)
    send_command(tab, "set_chart", chart=1, option="dead")  # all zero
    send_command(tab, "set_y_axis_scale", name="layers_0", option="log")
    chart.update()
    assert not chart.is_log


def test_a_moving_average_ignores_what_is_missing() -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf, 5.0, 7.0])
    smooth = moving_average(values, 0.75)
    np.testing.assert_allclose(smooth[[0, 2, 4, 5]], [5 / 3, 3.0, 5.0, 19 / 3])
    assert np.isnan(smooth[1])
    np.testing.assert_array_equal(moving_average(values, 0.0), values)


def test_smoothing_is_that_of_the_chart(tab: TabState, follower: InProcessFollower) -> None:
    follower.train(60)
    chart = build(tab, LayerChart)
    chart.update()
    raw = chart.source.data["value"].copy()
    send_command(tab, "set_smoothing", name="layers_0", value=0.2)
    assert chart.update() is True
    smooth = chart.source.data["value"]
    assert np.abs(np.diff(smooth)).sum() < np.abs(np.diff(raw)).sum()


def test_the_raw_loss_is_hidden_where_it_equals_the_curve(tab: TabState) -> None:
    chart = build(tab, MetricChart)
    chart.update()
    assert len(chart.raw_source.data["step"]) > 0
    send_command(tab, "set_smoothing", name="loss", value=0.0)
    chart.update()
    assert len(chart.raw_source.data["step"]) == 0


@pytest.mark.parametrize("chart", [*CHARTS, FilterScatterChart])
def test_charts_zoom_with_the_wheel_and_pan_with_a_drag(
    tab: TabState, chart: Callable[..., Any]
) -> None:
    root = (chart(tab) if chart is FilterScatterChart else build(tab, chart)).root
    assert isinstance(root.toolbar.active_scroll, WheelZoomTool)
    assert isinstance(root.toolbar.active_drag, PanTool)
    assert {"doubletap", "rangesupdate"} <= set(root.js_event_callbacks)


@pytest.mark.parametrize("chart", [MetricChart, LayerChart])
def test_new_values_leave_the_ranges_to_the_browser(
    tab: TabState, follower: InProcessFollower, chart: Callable[..., Any]
) -> None:
    """A range that the server sets would end the user's zoom with every new batch."""
    component = build(tab, chart)
    component.update()
    ranges = component.root.x_range, component.root.y_range
    component.root.x_range.start, component.root.x_range.end = 1.5, 2.5  # as the browser reports
    follower.train(3)
    component.update()
    assert (component.root.x_range, component.root.y_range) == ranges
    assert (component.root.x_range.start, component.root.x_range.end) == (1.5, 2.5)


@pytest.mark.parametrize("chart", [MetricChart, LayerChart])
def test_curves_end_before_their_names(tab: TabState, chart: Callable[..., Any]) -> None:
    component = build(tab, chart)
    component.update()
    ends, names = component.labels.source.data["step"], component.labels.source.data["layer"]
    assert len(names) > 0
    extent = component.root.x_range.renderers[0].data_source.data["x"]
    assert extent[0] <= min(ends)
    assert extent[1] > max(ends)
    assert not any(type(one).__name__ == "Legend" for one in component.root.center)


def label_spans(chart: Any) -> list[tuple[float, float]]:
    """Return the upper and the lower edge of each label in px, as Bokeh draws it, by height."""
    labels, height = chart.labels.source.data, chart.labels.size[1]
    ys = np.asarray(labels["value"], float)
    drawn = [np.asarray(one, float) for one in chart.source.data["value"]]
    raw = getattr(chart, "raw_source", chart.labels.source).data["value"]
    values = np.concatenate([*drawn, raw])
    if chart.is_log:
        ys, values = np.log(ys), np.log(values)
    low, high = np.nanmin(values), np.nanmax(values)
    top, span = (low + high) / 2 + 0.55 * (high - low), 1.1 * (high - low)
    centers = height * (top - ys) / span + labels["shift"]
    return sorted((center - LABEL_HEIGHT / 2, center + LABEL_HEIGHT / 2) for center in centers)


@pytest.mark.parametrize("chart", [MetricChart, LayerChart])
def test_labels_lay_on_curves_that_go_on_after_the_labeled_one(
    tab: TabState, follower: InProcessFollower, chart: Callable[..., Any]
) -> None:
    """The last validation is some batches ago: its name was written across the training loss."""
    follower.train(5)
    component = build(tab, chart)
    component.update()
    labels = component.labels.source.data
    assert follower.state is not None
    last = follower.state.histories.scalars.steps[-1]
    assert set(labels["step"]) == {last}
    assert np.all(labels["end"] <= last)
    if chart is MetricChart:
        assert labels["end"][labels["layer"].index("val_loss")] < last  # a line leads to its name


@pytest.mark.parametrize("chart", [MetricChart, LayerChart])
def test_labels_overlapped_because_the_axis_is_longer_than_its_values(
    tab: TabState, chart: Callable[..., Any]
) -> None:
    component = build(tab, chart)
    component.update()
    spans = label_spans(component)
    assert len(spans) > 1
    for (_, lower), (upper, _) in itertools.pairwise(spans):
        assert upper >= lower - 1e-6


def test_names_of_layers_without_dead_filters_were_below_the_chart(tab: TabState) -> None:
    chart = build(tab, LayerChart)
    zeros = np.zeros(3)
    shifts = chart.labels.label_shifts(zeros, zeros, is_log=False, min_y=0.0)
    assert max(shifts) <= -LABEL_HEIGHT / 2  # above the axis, at which the curves end
    assert np.allclose(np.diff(shifts), LABEL_HEIGHT)


def test_names_of_layers_lay_on_the_curves_of_a_longer_run(compared: TabState) -> None:
    chart = build(compared, LayerChart)
    chart.update()
    longest = chart.source.data["compared"]["step"][-1]
    assert longest > chart.source.data["step"][-1]
    assert set(chart.labels.source.data["step"]) == {longest}


# A second run


def test_a_second_run_is_laid_over_the_metrics(compared: TabState) -> None:
    chart = build(compared, MetricChart)
    chart.update()
    data = chart.source.data
    assert data["label"] == ["train", "val_loss", "train", "val_loss"]
    assert data["dash"] == ["solid", "solid", "dashed", "dashed"]
    assert data["color"][:2] == data["color"][2:]
    assert data["run"][0] == ""
    assert data["run"][-1].startswith("OtherNet")
    assert len(data["step"][2]) == len(data["step"][0]) + 2
    assert [name for name in chart.labels.source.data["layer"] if name.endswith("′")]


@pytest.mark.parametrize("chart", [LearningRateChart, MetricChart])
def test_without_a_second_run_nothing_is_dashed(compared: TabState, chart: Any) -> None:
    component = build(compared, chart)
    component.update()
    assert "dashed" in component.source.data["dash"]
    send_command(compared, "compare_run", run="")
    assert component.update() is True
    assert set(component.source.data["dash"]) == {"solid"}


def test_a_second_run_is_laid_over_the_layers_of_the_same_name(compared: TabState) -> None:
    chart = build(compared, LayerChart)
    chart.update()
    data = chart.source.data["compared"]
    assert data["layer"] == chart.source.data["layer"]
    assert data["value"].shape == (len(data["layer"]), 5)
    assert len(data["step"]) == 5
    assert len(data["color"]) == len(data["layer"])


def test_a_run_is_not_compared_with_itself_or_with_an_unknown_one(
    tab: TabState, compared: TabState
) -> None:
    send_command(tab, "compare_run", run="other")
    assert tab.run_selection.compared_state() is None
    send_command(compared, "compare_run", run="no such run")
    assert compared.run_selection.compared_run == "other"


def test_the_menu_lists_the_other_runs(compared: TabState) -> None:
    choices = ChartChoicesPanel(compared)
    choices.update()
    data = choices.source.data
    assert [run["id"] for run in data["other_runs"]] == ["other"]
    assert data["compared_run"] == "other"
    assert data["compared_name"].startswith("OtherNet")


# Tables


def test_a_table_has_the_recorded_values_of_both_runs(compared: TabState) -> None:
    charts = [build(compared, chart) for chart in CHARTS]
    table = ChartCsvExport(compared, lambda: charts)
    assert table.update() is False
    send_command(compared, "request_chart_csv", name="loss")
    assert table.update() is True
    assert table.update() is False
    assert table.source.data["chart"] == "loss"
    lines = table.source.data["csv"].splitlines()
    assert lines[0] == "run,curve,batch,epoch,seconds,value"
    rows = [line.split(",") for line in lines[1:]]
    assert {row[0] for row in rows if row[0] == "other"}
    losses = [float(row[5]) for row in rows if row[1] == "train" and row[0] != "other"]
    state = compared.state
    assert state is not None
    np.testing.assert_allclose(losses, state.histories.scalars.rows[:, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["learning_rate", "layers_0", "layers_1", "filter_gradient"])
def test_every_chart_over_time_can_be_saved_as_a_table(tab: TabState, name: str) -> None:
    markers = EditMarkers(tab).source
    charts = [LayerChart(tab, markers, 1), *(build(tab, chart) for chart in CHARTS)]
    table = ChartCsvExport(tab, lambda: charts)
    send_command(tab, "request_chart_csv", name=name)
    table.update()
    assert len(table.source.data["csv"].splitlines()) > 3
