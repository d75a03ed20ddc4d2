"""A trial of edits: what it costs, how far it is, and what it has found."""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct, field

__all__ = ["TrialCost", "TrialStage", "TrialState"]

TrialStage = Literal["recording", "training", "undecided", "kept", "discarded", "failed"]


class TrialCost(Struct, frozen=True):
    """What a trial of so many batches will cost, about.

    ``seconds`` is the time that the training waits for the twins, besides the batches that it
    trains anyway. It is None before the first batch, when it is unknown.
    """

    batches: int
    bytes: int  # of copies of the network, of the optimizer's state and of the batches
    seconds: float | None = None


class TrialState(Struct, frozen=True):
    """The trial that was started last.

    - ``recording``: the training trains its batches; ``done`` of them are trained.
    - ``training``: the training waits; ``done`` of ``2 * batches`` steps of the twins are trained.
    - ``undecided``: the training waits for the decision.
    - ``kept``, ``discarded``; ``failed``: there is no result, and the training goes on unedited.

    ``losses`` are those of the batches in the training, and ``edited_losses`` those of the edited
    network. ``change`` is the mean of their differences, edited less unedited, and ``low`` and
    ``high`` are the limits of its 95 % confidence interval. They are NaN without a result.
    """

    stage: TrialStage
    id: str  # of the request that has started it
    titles: list[str]  # of the edits
    step: int  # the first batch
    batches: int
    done: int = 0
    losses: list[float] = field(default_factory=list)
    edited_losses: list[float] = field(default_factory=list)
    change: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seconds: float = 0.0  # that the training has waited for the twins
    bytes: int = 0  # that the trial has taken at most
    note: str = ""  # why it has failed or was discarded

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to be decided."""
        return self.stage in ("kept", "discarded", "failed")
