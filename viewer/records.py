"""What is remembered of the changes of a run: where it was edited, and what became of requests."""

from __future__ import annotations

from msgspec import Struct

from revacnn_lightning.protocol.messages import PlanSummary

__all__ = ["EditMark", "RequestRecord"]


class EditMark(Struct, frozen=True):
    """The network changed here: drawn on the time axes."""

    step: int
    version: int
    title: str = ""  # what was done, where this viewer has heard of it


class RequestRecord(Struct):
    """One request that was sent, and what became of it."""

    id: str
    title: str
    sent: float  # Unix time
    state: str = "sent"  # sent, applied, done, refused
    step: int = 0
    version: int = 0  # of the structure it led to
    layers: list[str] = []  # whose widths it changed
    text: str = ""  # the new widths, or the reason of the refusal
    plan: PlanSummary | None = None  # of an applied edit
    output_change: float | None = None  # measured on the batch before which it was applied
