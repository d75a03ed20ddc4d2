"""How many ranks the statistics are means of, and on demand which rank differs."""

from __future__ import annotations

from typing import Any

import numpy as np

from revacnn_lightning.protocol.rank_messages import RankValues

from ..rendering.formatting import format_count, format_number
from .html_panel import HtmlDataPanel

__all__ = ["RankStatisticsPanel"]


class RankStatisticsPanel(HtmlDataPanel):
    """The statistics of the selected layer in each rank of a training with several processes."""

    part = "ranks"

    def content(self) -> dict[str, Any]:
        state, tab = self.tab.state, self.tab
        snapshot = None if state is None else state.snapshot
        size = 1 if snapshot is None else snapshot.ranks
        is_open = tab.compares_ranks and size > 1
        content = {"shown": size > 1, "open": is_open, "head": [], "rows": []}
        if not is_open or tab.structure is None:
            return {**content, "text": f"All values are means over {size} ranks."}
        layer = tab.layer(None) or tab.structure.layers[0]
        tab.follower.ranks.keep_requesting(layer.name)
        newest = tab.follower.ranks.newest
        if newest is None or newest.layer != layer.name:
            awaited = tab.waiting_reason(f"Waiting for the values of {layer.name} in each rank")
            return {**content, "text": awaited}
        return {**content, **_table(newest)}


def _table(values: RankValues) -> dict[str, Any]:
    differences = values.differences()
    shown = [name.replace("_", " ") for name in values.statistics]
    rows = []
    for rank, loss in enumerate(values.losses):
        means = [_mean(row) for row in values.values[rank]]
        note = "; ".join(differences.get(rank, []))
        shown_loss = "–" if loss is None else format_number(loss)
        rows.append({"cells": [str(rank), shown_loss, *means], "note": note})
    count = len(differences)
    verdict = {0: "no rank differs", 1: f"rank {min(differences, default=0)} differs"}
    text = (
        f"{values.layer}, mean over its filters, up to batch {format_count(values.step)}: "
        f"{verdict.get(count, f'{count} ranks differ')}."
    )
    return {"head": ["rank", "loss", *shown], "rows": rows, "text": text}


def _mean(row: np.ndarray) -> str:
    """Return the mean of what was recorded."""
    recorded = row[~np.isnan(row)]
    return format_number(float(recorded.mean())) if len(recorded) else "–"
