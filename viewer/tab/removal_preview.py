"""What would go together with a filter, asked of the training before anything is clicked."""

from __future__ import annotations

import logging

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import Planned, PlanSummary, Structure
from revacnn_lightning.protocol.requests import RemoveFilters

from ..runs.run_follower import RunFollower
from ..runs.run_state import RunState

__all__ = ["RemovalPreview"]

log = logging.getLogger(__name__)

MAX_ASKED = 256


class RemovalPreview:
    """The answers, one per structure version and filter. Each is the plan of a dry run."""

    def __init__(self) -> None:
        self._asked: dict[tuple[int, str, int], str] = {}

    def clear(self) -> None:
        """Forget all answers: another run."""
        self._asked.clear()

    def ask(
        self, follower: RunFollower, structure: Structure, layer_name: str, filter_id: int
    ) -> None:
        """Send the dry run of a removal, unless that was done already."""
        key = (structure.version, layer_name, filter_id)
        layer = next((one for one in structure.layers if one.name == layer_name), None)
        if key in self._asked or layer is None or filter_id not in layer.filter_ids:
            return
        if len(self._asked) >= MAX_ASKED:
            self._asked.clear()
        edit = RemoveFilters(layer_name, [layer.filter_ids.index(filter_id)])
        try:
            self._asked[key] = follower.preview(edit, structure.version)
        except ProtocolError as error:
            log.warning("Cannot ask what goes together: %s", error)

    def answer(
        self, state: RunState, structure: Structure, layer_name: str, filter_id: int
    ) -> tuple[PlanSummary | None, str]:
        """The plan of the removal, or why it is refused; neither before the training answered."""
        plan_id = self._asked.get((structure.version, layer_name, filter_id), "")
        plan = state.requests.plans.get(plan_id)
        if isinstance(plan, Planned):
            return plan.plan, ""
        return None, "" if plan is None else plan.reason
