"""The order of changes: requests, edits and alerts, newest first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.messages import PlanSummary

__all__ = ["Change", "EditMark", "RequestRecord", "change_time", "newest_first"]


class EditMark(Struct, frozen=True):
    """A step at which the network changed, shown on the time axes."""

    step: int
    version: int
    title: str = ""  # the edit; "" if it is unknown
    time: float = 0.0  # Unix time; 0: unknown


class RequestRecord(Struct):
    """A request and its outcome.

    Attributes:
        sent: Unix time.
        state: ``sent``, ``applied``, ``done`` or ``refused``.
        step: the batch before which it was carried out or refused; -1: unknown.
        version: the version of the structure after the request; 0 if nothing was changed.
        layers: the layers whose width the edit changed.
        text: the new widths, or the reason for the refusal.
        plan: the plan of an applied edit.
        output_change: relative change of the model's output on the batch before the edit.
        is_trial: whether the reply only says that a trial of edits has started.
        time: Unix time of the outcome, by the clock of the training; 0: unknown.
    """

    id: str
    title: str
    sent: float
    state: str = "sent"
    step: int = -1
    version: int = 0
    layers: list[str] = []
    text: str = ""
    plan: PlanSummary | None = None
    output_change: float | None = None
    is_trial: bool = False
    time: float = 0.0


Change = RequestRecord | RequestOutcome | EditMark | Alert


def change_time(change: Change) -> float:
    """Return the Unix time of a change; 0 if it is unknown."""
    return (change.time or change.sent) if isinstance(change, RequestRecord) else change.time


def newest_first(changes: Sequence[Change]) -> list[Change]:
    """Return changes in the order of time, newest first.

    A request without a reply is the newest. Where the time of a change is unknown, it is that of
    the last one at its batch or before.
    """
    known = [(one.step, change_time(one)) for one in changes if change_time(one) > 0]

    def moment(change: Change) -> float:
        if isinstance(change, RequestRecord) and change.state == "sent":
            return math.inf
        step = change.step
        at = change_time(change)
        return at or max((time for other, time in known if 0 <= other <= step), default=0.0)

    def key(change: Change) -> tuple[float, int, bool, float]:
        version = -1 if isinstance(change, Alert) else change.version
        return moment(change), change.step, isinstance(change, Alert), version

    return sorted(changes, key=key)[::-1]  # of equal ones, the later one is the newer one
