"""What a run does by itself between batches, as its status says."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from revacnn_lightning.protocol.automatic_requests import Policy

__all__ = ["AutomaticState", "Proposal", "PruningState"]


class PruningState(Struct, frozen=True):
    """The pruning to a budget that was started last.

    ``measure`` is the unit of ``start``, ``now`` and ``target``, the sizes of the network: before
    the first removal, at present, and to be reached. They are 0 until the network is traced.
    ``removed`` filters, with coupled ones, were removed by ``edits`` that are in force. ``cost`` is
    the sum of the predicted changes of the loss; NaN if one of them was not measured.
    """

    state: Literal["running", "paused", "ended"]
    measure: Literal["macs", "parameters"]
    share: float  # to be reached, of the network at the start
    start: int = 0
    now: int = 0
    target: int = 0
    removed: int = 0
    edits: int = 0
    cost: float = 0.0
    note: str = ""  # why it waits or has ended, or that filters are ranked only


class Proposal(Struct, frozen=True):
    """A verdict on a layer of the structure in the status, with its remedies.

    ``kind``, ``remedy`` and ``alternatives`` are those of the verdict; ``is_free`` if it is proved
    that the remedy changes nothing that the network computes. ``busiest`` are the filters to split,
    if that is an alternative; ``clip_norm`` and ``clip_note`` are the norm at which to clip the
    gradient, and where it comes from.
    """

    kind: str
    layer: str
    filters: list[int]
    remedy: str
    evidence: str
    is_free: bool = False
    alternatives: list[str] = field(default_factory=list)
    busiest: list[int] = field(default_factory=list)
    clip_norm: float = 0.0
    clip_note: str = ""


class AutomaticState(Struct, frozen=True):
    """The steering policy of a run, the edits that it proposes, and its pruning."""

    policy: Policy = "off"
    proposals: list[Proposal] = field(default_factory=list)
    pruning: PruningState | None = None
