"""The requests of what a run does by itself between batches: pruning to a budget, and a policy.

`requests` exports them with all others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = [
    "AutomaticCommand",
    "ControlPruning",
    "Policy",
    "PruneTo",
    "PruningAction",
    "SetPolicy",
]

Share = Annotated[float, Meta(gt=0, lt=1)]
PruningAction = Literal["pause", "resume", "end", "undo"]
Policy = Literal["off", "propose", "apply_free"]


class PruneTo(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Remove the cheapest filters of all layers, a few at a time, until a target is reached.

    Exactly one of ``macs`` and ``parameters`` is the target, as a share of the present network.
    Every ``every`` batches, the run measures what the removal of each of the cheapest filters would
    cost, and removes those ``filters`` that cost least. Each layer of them is one edit, which can
    be undone like any other. The run goes on when the client has left.
    """

    macs: Share | None = None
    parameters: Share | None = None
    filters: Annotated[int, Meta(ge=1, le=64)] = 4
    every: Annotated[int, Meta(ge=1)] = 20


class ControlPruning(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Control the pruning that `PruneTo` has started.

    - ``pause``, ``resume``: remove nothing more for now, continue.
    - ``end``: remove nothing more.
    - ``undo``: end it, and undo its edits, as far as no other edit came later. At most 32 edits can
      be undone.
    """

    action: PruningAction


class SetPolicy(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Set the steering policy: what the run does with its verdicts, also without a viewer.

    - ``off``: nothing.
    - ``propose``: examine the layers, and publish the remedies in `messages.Status`.
    - ``apply_free``: that, and remove filters that are certified to be dead for good.
    """

    policy: Policy


AutomaticCommand = PruneTo | ControlPruning | SetPolicy
