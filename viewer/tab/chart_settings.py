"""What the charts of one tab show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from revacnn_lightning.history.run_history import LAYER_STATISTICS

from ..runs.metric_names import LOSS, families

__all__ = ["LAYER_TITLES", "ChartSettings"]

LAYER_TITLES = {
    "gradient": "Mean |∇| by layer",
    "activation": "Mean Σ activation by layer",
    "update_ratio": "Update ratio ‖Δw‖ / ‖w‖ by layer",
    "dead": "Dead filters by layer",
}


@dataclass
class ChartSettings:
    """The metric of the metric chart and the statistics of the two layer charts.

    Attributes:
        metric: metric family, for example ``loss``.
        layer_statistics: one statistic per layer chart.
    """

    metric: str = LOSS
    layer_statistics: list[str] = field(default_factory=lambda: ["gradient", "activation"])

    def set_chart(self, chart: int, option: str, metrics: Iterable[str]) -> None:
        """Show ``option`` in a chart: 0 is the metric chart, 1 and 2 are the layer charts.

        Unknown charts and options are ignored. ``metrics`` names the metrics logged so far.
        """
        if chart == 0 and option in families(metrics):
            self.metric = option
        elif 1 <= chart <= len(self.layer_statistics) and option in LAYER_STATISTICS:
            self.layer_statistics[chart - 1] = option
