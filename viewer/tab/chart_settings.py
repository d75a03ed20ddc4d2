"""What the charts of one tab show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from revacnn_lightning.history.run_history import LAYER_STATISTICS

from ..runs.metric_names import LOSS, group_by_family

__all__ = ["LAYER_TITLES", "MAX_SMOOTHING", "ChartSettings", "Scale", "XAxis"]

LAYER_TITLES = {
    "gradient": "Mean |∇| by layer",
    "activation": "Mean Σ activation by layer",
    "update_ratio": "Update ratio ‖Δw‖ / ‖w‖ by layer",
    "dead": "Dead filters by layer",
}
XAxis = Literal["batch", "epoch", "time"]
Scale = Literal["auto", "linear", "log"]
MAX_SMOOTHING = 0.2  # a wider average shows little but its own window


def _default_smoothing() -> dict[str, float]:
    return {
        "loss": 0.025,
        "layers_0": 0.0,
        "layers_1": 0.0,
        "filter_gradient": 0.025,
        "filter_activation": 0.025,
    }


def _default_scales() -> dict[str, Scale]:
    names = ("loss", "learning_rate", "layers_0", "layers_1", "filter_gradient")
    return dict.fromkeys((*names, "filter_activation"), "auto")


@dataclass
class ChartSettings:
    """The metric of the metric chart, the statistics of the layer charts, and how they are drawn.

    Attributes:
        metric: metric family, for example ``loss``.
        layer_statistics: one statistic per layer chart.
        x_axis: what all charts over time are drawn over.
        smoothing: per name of a chart that can be smoothed, the width of the moving average as a
            share of the curve, 0 to `MAX_SMOOTHING`.
        scales: per name of a chart, the scale of its y axis.
        saved_chart: name of the chart that the page wants as a table, and the number of the
            request.
    """

    metric: str = LOSS
    layer_statistics: list[str] = field(default_factory=lambda: ["gradient", "activation"])
    x_axis: XAxis = "batch"
    smoothing: dict[str, float] = field(default_factory=_default_smoothing)
    scales: dict[str, Scale] = field(default_factory=_default_scales)
    saved_chart: tuple[str, int] = ("", 0)

    def set_chart(self, chart: int, option: str, metrics: Iterable[str]) -> None:
        """Show ``option`` in a chart: 0 is the metric chart, 1 and 2 are the layer charts.

        Unknown charts and options are ignored. ``metrics`` names the metrics logged so far.
        """
        if chart == 0 and option in group_by_family(metrics):
            self.metric = option
        elif 1 <= chart <= len(self.layer_statistics) and option in LAYER_STATISTICS:
            self.layer_statistics[chart - 1] = option

    def set_x_axis(self, option: str) -> None:
        """Draw all charts over batches, epochs or time. Unknown options are ignored."""
        self.x_axis = next((one for one in get_args(XAxis) if one == option), self.x_axis)

    def set_smoothing(self, name: str, share: float) -> None:
        """Set the smoothing of a chart. Unknown charts are ignored, and ``share`` is clamped."""
        if name in self.smoothing and share == share:
            self.smoothing[name] = max(0.0, min(MAX_SMOOTHING, share))

    def set_y_axis_scale(self, name: str, option: str) -> None:
        """Set the scale of a chart's y axis. Unknown charts and scales are ignored."""
        if name in self.scales:
            known = (one for one in get_args(Scale) if one == option)
            self.scales[name] = next(known, self.scales[name])

    def request_chart_csv(self, name: str) -> None:
        """Request the curves of a chart as CSV. Unknown charts are ignored."""
        if name in self.scales:
            self.saved_chart = (name, self.saved_chart[1] + 1)
