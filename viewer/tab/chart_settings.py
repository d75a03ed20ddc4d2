"""What the charts of one tab show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..runs.metric_names import LOSS, families
from ..runs.run_histories import LAYER_STATISTICS

__all__ = ["LAYER_TITLES", "ChartSettings"]

LAYER_TITLES = {
    "gradient": "Mean |∇| by layer",
    "activation": "Mean Σ activation by layer",
    "update_ratio": "Update ratio ‖Δw‖ / ‖w‖ by layer",
    "dead": "Dead filters by layer",
}


@dataclass
class ChartSettings:
    """``metric`` is a family of metrics; ``layers`` are the statistics of the two layer charts."""

    metric: str = LOSS
    layers: list[str] = field(default_factory=lambda: ["gradient", "activation"])

    def choose(self, chart: int, by: str, metrics: Iterable[str]) -> None:
        """Show ``by`` in a chart: 0 is that of metrics, 1 and 2 are those of layers."""
        if chart == 0 and by in families(metrics):
            self.metric = by
        elif 1 <= chart <= len(self.layers) and by in LAYER_STATISTICS:
            self.layers[chart - 1] = by
