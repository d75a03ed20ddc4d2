"""Trials of edits in words: what one costs, how far it is, and what it has found."""

from __future__ import annotations

import math

from revacnn_lightning.protocol.trial_state import TrialCost, TrialState

from .formatting import format_number
from .prices import format_loss_change

__all__ = [
    "format_short_trial_cost",
    "format_trial_cost",
    "format_trial_progress",
    "format_trial_result",
]


def format_trial_cost(cost: TrialCost) -> str:
    """Return for example ``the training waits for at most about 3.2 s; takes 12 MB of memory``."""
    size = f"{_megabytes(cost.bytes)} of memory"
    if cost.seconds is None:
        return f"trains these batches twice more; takes {size}"
    return f"the training waits for at most about {_seconds(cost.seconds)}; takes {size}"


def format_short_trial_cost(cost: TrialCost) -> str:
    """Return for example ``≤ 3.2 s · 12 MB``."""
    seconds = "" if cost.seconds is None else f"≤ {_seconds(cost.seconds)}"
    return " · ".join(filter(None, [seconds, _megabytes(cost.bytes)]))


def format_trial_progress(trial: TrialState) -> str:
    """Return how far a trial without a result is."""
    if trial.stage == "recording":
        return f"Training batch {min(trial.done + 1, trial.batches)} of {trial.batches}"
    return f"Training both networks again: step {trial.done} of {2 * trial.batches}"


def format_trial_result(trial: TrialState) -> str:
    """Return the change of the loss with its interval, both losses, and what the trial took."""
    took = f"waited {_seconds(trial.seconds)}, took {_megabytes(trial.bytes)}"
    if math.isnan(trial.change):
        return f"A loss of the edited network is not finite · {took}"
    count = len(trial.losses)
    means = [sum(losses) / count for losses in (trial.losses, trial.edited_losses)]
    return (
        f"Loss {format_loss_change(trial.change)} (95 % interval {format_loss_change(trial.low)} "
        f"to {format_loss_change(trial.high)}), mean of {count} batches: {format_number(means[0])} "
        f"unedited, {format_number(means[1])} edited · {took}"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2g} MB" if size < 100e6 else f"{size / 1e6:,.0f} MB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"
