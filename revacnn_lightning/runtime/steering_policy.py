"""Applies the verdicts on a run by a policy, also while no viewer is attached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.history.network_verdicts import NetworkVerdicts
from revacnn_lightning.protocol.automatic_requests import Policy
from revacnn_lightning.protocol.automatic_state import Proposal
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.messages import LayerInfo, Message, Snapshot, Structure
from revacnn_lightning.protocol.requests import InspectEvidence, RemoveFilters
from revacnn_lightning.runtime.layer_evidence import LayerEvidenceCollector
from revacnn_lightning.runtime.provably_dead_filters import ProvablyDeadFilters
from revacnn_lightning.runtime.pruning import Submit
from revacnn_lightning.runtime.request_queue import PendingRequest

__all__ = ["SteeringPolicyExecutor"]

log = logging.getLogger(__name__)

MAX_PROPOSALS = 32
UPDATE_BATCHES = 20  # between two updates of the proposals


class SteeringPolicyExecutor:
    """Proposes edits from the verdicts on a run, and applies those that the policy allows.

    It executes the command `SetPolicy`, and observes the messages of the run.

    Args:
        evidence: examines the layers while it is asked to.
        provably_dead_filters: find the filters that are dead for good.
        get_dead: returns which filters are silent, bool (N,); None while this is unknown.
        submit: queues an edit, for the present structure.

    Attributes:
        policy: the policy in force.
        proposals: the proposed edits of the present network, the most valuable first.
    """

    def __init__(
        self,
        evidence: LayerEvidenceCollector,
        provably_dead_filters: ProvablyDeadFilters,
        get_dead: Callable[[], np.ndarray | None],
        submit: Submit,
    ) -> None:
        self.policy: Policy = "off"
        self.proposals: list[Proposal] = []
        self._evidence = evidence
        self._provably_dead_filters = provably_dead_filters
        self._get_dead = get_dead
        self._submit = submit
        self._verdicts = NetworkVerdicts()
        self._structure: Structure | None = None
        self._pending: PendingRequest | None = None
        self._free: list[str] = []  # layers in which an examination found dead filters
        self._updated_at = 0

    def set_policy(self, policy: Policy) -> str:
        """Set the policy; return in words what it does."""
        self.policy = policy
        if policy == "off":
            self.proposals, self._free = [], []
            return "The run proposes nothing"
        if policy == "propose":
            return "The run examines its layers and proposes remedies"
        return "The run proposes remedies, and removes filters that are dead for good"

    def advance(self, step: int) -> None:
        """Examine the layers, update the proposals, and apply what is free."""
        if self.policy == "off":
            return
        self._evidence.select(InspectEvidence())
        if step - self._updated_at >= UPDATE_BATCHES:
            self._updated_at = step
            self._update()
        if self._pending is not None and self._pending.reply is not None:
            self._pending = None
        if self.policy == "apply_free" and self._pending is None and self._free:
            self._apply_free(self._free.pop(0))

    def _update(self) -> None:
        found = [
            _proposal(one)
            for one in self._verdicts.verdicts(self._get_dead())
            if one.is_known and one.layer and one.remedy
        ]
        self.proposals = found[:MAX_PROPOSALS]

    def _apply_free(self, layer: str) -> None:
        """Remove the filters of a layer that are dead for good now, but the last one."""
        try:
            dead, _ = self._provably_dead_filters.find_in_layer(layer)
        except (KeyError, AttributeError):  # the layer was removed
            return
        widths = {one.name: len(one.filter_ids) for one in self._layers()}
        filters = dead[: widths.get(layer, 1) - 1]
        if filters:
            log.info("Removing %d filters of %s that are dead for good", len(filters), layer)
            self._pending = self._submit(RemoveFilters(layer, filters))

    def _layers(self) -> Sequence[LayerInfo]:
        return () if self._structure is None else self._structure.layers

    # ---------------------------------------------------------------- observing the run

    def needs_batch(self, step: int) -> bool:
        """Return whether to record the batch."""
        return self.policy != "off"

    def receive(self, message: Message, frames: Sequence[Any] = ()) -> None:
        """Receive what the run has published."""
        if isinstance(message, Structure):
            before, self._structure = self._structure, message
            if before is None or before.version != message.version:
                self._verdicts.update_structure(before, message)
                self.proposals, self._free = [], []
        elif isinstance(message, Snapshot) and self.policy != "off":
            self._verdicts.add(message)
        elif isinstance(message, LayerEvidence):
            self._verdicts.add_evidence(message)
            if message.provably_dead and message.layer not in self._free:
                self._free.append(message.layer)

    def close(self, state: str, detail: str) -> None:
        """Do nothing: this observer holds no resources."""


def _proposal(verdict: Verdict) -> Proposal:
    return Proposal(
        verdict.kind,
        verdict.layer,
        list(verdict.filters),
        verdict.remedy,
        verdict.evidence,
        is_free=verdict.kind == "provably_dead",
        alternatives=list(verdict.alternatives),
        busiest=list(verdict.busiest),
        clip_norm=verdict.clip_norm,
        clip_note=verdict.clip_note,
    )
