"""What the run does by itself: pruning to a budget with its progress, and the policy."""

from __future__ import annotations

import math
from typing import Any

from revacnn_lightning.protocol.automatic_state import AutomaticState, PruningState

from ..rendering.formatting import count_of
from ..rendering.prices import format_loss_change
from .html_panel import HtmlDataPanel

__all__ = ["AutomaticEditsPanel"]

UNITS = {"macs": "MACs", "parameters": "parameters"}


class AutomaticEditsPanel(HtmlDataPanel):
    """What the run edits by itself: pruning to a budget, and the policy for its own verdicts.

    It is shown beside the prices, and to everybody while the run prunes by itself.
    """

    part = "automatic"

    def content(self) -> dict[str, Any]:
        state = self.tab.state
        status = None if state is None else state.status
        automatic = AutomaticState() if status is None else status.automatic
        pruning = automatic.pruning
        stage = "none" if pruning is None else pruning.state
        is_busy = stage in ("running", "paused")
        return {
            "shown": status is not None and (self.tab.shows_prices or is_busy),
            "stage": stage,
            "text": "" if pruning is None else _describe(pruning),
            "progress": 0.0 if pruning is None else _progress(pruning),
            "revocable": pruning is not None and pruning.edits > 0,
            "policy": automatic.policy,
            "proposals": len(automatic.proposals),
            "refusal": self.tab.steering_refusal(),
        }


def _progress(pruning: PruningState) -> float:
    """Return the share of what is to be removed that was removed, 0 to 1."""
    total = pruning.start - pruning.target
    return min(1.0, (pruning.start - pruning.now) / total) if total > 0 else 0.0


def _describe(pruning: PruningState) -> str:
    """Return for example ``71% of the MACs, 50% is the target; 12 filters removed``."""
    words = [f"target: {pruning.share:.0%} of the {UNITS[pruning.measure]}"]
    if pruning.start:
        words.insert(0, f"now {pruning.now / pruning.start:.0%}")
    if pruning.removed:
        removed = f"{count_of(pruning.removed, 'filter')} removed"
        if not math.isnan(pruning.cost):
            removed += f", predicted loss {format_loss_change(pruning.cost)}"
        words.append(removed)
    stage = {"running": "Pruning", "paused": "Pruning is paused", "ended": "Pruning has ended"}
    text = f"{stage[pruning.state]}: {'; '.join(words)}"
    return f"{text} ({pruning.note})" if pruning.note else text
