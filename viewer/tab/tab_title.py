"""The title of the browser tab: what the run is doing, its main metric, its epoch and its name."""

from __future__ import annotations

from ..rendering.formatting import format_number
from ..runs.metric_names import main_metric
from .tab_state import TabState

__all__ = ["tab_title"]

NO_RUN = "ReVACNN"
STATE_MARKS = {
    "training": "●",
    "validating": "●",
    "paused": "❚❚",
    "finished": "✓",
    "failed": "✗",
    "gone": "✗",
    "recording": "▶",
}
OTHER_STATE_MARK = "○"


def tab_title(tab: TabState) -> str:
    """Return for example ``● 0.78 · epoch 38 · wide stem``. The newest batch counts.

    The number is the metric that the first chart shows. While that is the loss, it is the main
    metric that the module logs, or else the loss.
    """
    connection, state = tab.follower.connection, tab.state
    if connection is None or state is None:
        return NO_RUN
    facts, snapshot = [], state.snapshot
    if snapshot is not None:
        metric = main_metric(snapshot.metrics, tab.chart_settings.metric)
        value = snapshot.metrics[metric] if metric else snapshot.loss
        facts = [format_number(value)] if value is not None else []
        facts.append(f"epoch {snapshot.epoch + 1}")
    mark = STATE_MARKS.get(tab.follower.run_status().kind, OTHER_STATE_MARK)
    return f"{mark} {' · '.join([*facts, connection.title])}"
