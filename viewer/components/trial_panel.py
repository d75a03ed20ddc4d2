"""The trial of edits that is under way: its progress, then its result and the decision."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.trial_state import TrialState

from ..rendering.trials import (
    format_short_trial_cost,
    format_trial_cost,
    format_trial_progress,
    format_trial_result,
)
from ..tab.edit_queue import EditQueue
from ..tab.tab_state import TabState
from .html_panel import HtmlDataPanel

__all__ = ["CurrentTrialPanel", "edit_refusal_during_trial", "trial_cost_data"]

UNPLANNED = "The training has not replied yet what the changes do."
PURPOSE = "Train the edited and the unedited network on the same next batches, and decide then"


class CurrentTrialPanel(HtmlDataPanel):
    """The trial of edits that is under way or has failed, as every tab of the run shows it."""

    part = "trial"

    def content(self) -> dict[str, Any]:
        trial = _trial_of(self.tab)
        if trial is None or trial.stage in ("kept", "discarded"):
            return {"stage": "none"}
        return {
            "stage": trial.stage,
            "id": trial.id,
            "title": "; ".join(trial.titles),
            "text": _describe(trial),
            "progress": _progress(trial),
            "losses": trial.losses,
            "edited_losses": trial.edited_losses,
            "refusal": self.tab.steering_refusal(),
        }


def _describe(trial: TrialState) -> str:
    if trial.stage == "failed":
        return f"The trial has ended without a result: {trial.note}"
    return (
        format_trial_result(trial) if trial.stage == "undecided" else format_trial_progress(trial)
    )


def _progress(trial: TrialState) -> float:
    """Return how much is done, 0 to 1; the recorded batches are a third of all steps."""
    done = trial.done + (0 if trial.stage == "recording" else trial.batches)
    return min(1.0, done / (3 * trial.batches))


def _trial_of(tab: TabState) -> TrialState | None:
    status = None if tab.state is None else tab.state.status
    return None if status is None else status.trial


def edit_refusal_during_trial(tab: TabState) -> str:
    """Return why the run admits no edit while a trial is under way; "" if none is."""
    trial = _trial_of(tab)
    is_over = trial is None or trial.has_ended
    return "" if is_over else "A trial of edits is under way: keep or discard it first."


def trial_cost_data(queue: EditQueue, refusal: str) -> dict[str, Any]:
    """Return the cost of a trial of the staged changes, or why there can be none."""
    trial = queue.trial
    return {
        "can_try": not refusal and trial.is_possible,
        "try_hint": refusal or trial.refusal or (PURPOSE if trial.is_possible else UNPLANNED),
        "try_batches": trial.batches,
        "try_cost": "" if trial.cost is None else format_trial_cost(trial.cost),
        "try_short_cost": "" if trial.cost is None else format_short_trial_cost(trial.cost),
    }
