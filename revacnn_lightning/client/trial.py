"""A finished trial of edits, which waits for a decision."""

from __future__ import annotations

from collections.abc import Callable

from revacnn_lightning.protocol.trial_state import TrialState

__all__ = ["Trial"]


class Trial:
    """What a trial of edits has found. The training waits for `keep` or `discard`.

    Attributes:
        titles: the edits, in words.
        losses: the losses of the batches with the unedited network.
        edited_losses: the losses of the same batches with the edited network.
        change: the mean of their differences, edited less unedited; NaN if a loss is not finite.
        interval: the limits of its 95 % confidence interval.
        seconds: how long the training has waited for the edited network.
        megabytes: how much memory the trial has taken at most, 1 MB = 10**6 bytes.
    """

    def __init__(
        self, state: TrialState, keep: Callable[[], str], discard: Callable[[], str]
    ) -> None:
        self._keep, self._discard = keep, discard
        self.titles = state.titles
        self.losses = state.losses
        self.edited_losses = state.edited_losses
        self.change = state.change
        self.interval = (state.low, state.high)
        self.seconds = state.seconds
        self.megabytes = state.bytes / 1e6

    def keep(self) -> str:
        """Continue with the edited network as it is after the batches; return that in words."""
        return self._keep()

    def discard(self) -> str:
        """Continue as if there had been no trial; return that in words."""
        return self._discard()

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"<Trial of {'; '.join(self.titles)} on {len(self.losses)} batches: loss "
            f"{self.change:+.3g} ({low:+.3g} to {high:+.3g})>"
        )
