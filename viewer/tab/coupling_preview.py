"""Previews of removals: which coupled filters a removal would also remove."""

from __future__ import annotations

import logging

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import Planned, PlanSummary, Structure
from revacnn_lightning.protocol.requests import RemoveFilters

from ..runs.run_follower import RunFollower
from ..runs.run_state import RunState

__all__ = ["FilterRemovalPreviews"]

log = logging.getLogger(__name__)

MAX_PREVIEWS = 256


class FilterRemovalPreviews:
    """Dry runs of removing single filters, one per structure version and filter."""

    def __init__(self) -> None:
        self._plan_ids: dict[tuple[int, str, int], str] = {}

    def clear(self) -> None:
        """Discard all previews, for example when another run is shown."""
        self._plan_ids.clear()

    def request(
        self, follower: RunFollower, structure: Structure, layer_name: str, filter_id: int
    ) -> None:
        """Request the dry run of a removal, unless it was requested before."""
        key = (structure.version, layer_name, filter_id)
        layer = next((layer for layer in structure.layers if layer.name == layer_name), None)
        if key in self._plan_ids or layer is None or filter_id not in layer.filter_ids:
            return
        if len(self._plan_ids) >= MAX_PREVIEWS:
            self._plan_ids.clear()
        edit = RemoveFilters(layer_name, [layer.filter_ids.index(filter_id)])
        try:
            self._plan_ids[key] = follower.preview(edit, structure.version)
        except ProtocolError as error:
            log.warning("Cannot request a removal preview: %s", error)

    def plan_or_refusal(
        self, state: RunState, structure: Structure, layer_name: str, filter_id: int
    ) -> tuple[PlanSummary | None, str]:
        """Return the plan of the removal and the reason of a refusal.

        At most one of them is set. Neither is set before the reply has arrived.
        """
        plan_id = self._plan_ids.get((structure.version, layer_name, filter_id), "")
        plan = state.requests.plans.get(plan_id)
        if isinstance(plan, Planned):
            return plan.plan, ""
        return None, "" if plan is None else plan.reason
