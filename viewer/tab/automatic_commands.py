"""Commands that set what the run does by itself."""

from __future__ import annotations

from typing import get_args

from revacnn_lightning.protocol.automatic_requests import (
    ControlPruning,
    Policy,
    PruneTo,
    PruningAction,
    SetPolicy,
)

from .command_arguments import CommandArguments
from .tab_state import TabState

__all__ = ["control_pruning", "prune_to", "set_verdict_policy"]

MAX_FILTERS = 64  # in one round
TITLES = {
    "pause": "Pause the pruning",
    "resume": "Continue the pruning",
    "end": "End the pruning",
    "undo": "Undo the pruning",
}


def prune_to(tab: TabState, arguments: CommandArguments) -> None:
    """Prune to ``value`` of the MACs or the parameters, a share from 0 to 1."""
    share, measure = arguments.value, arguments.option
    if not 0 < share < 1 or measure not in ("macs", "parameters"):
        return
    request = PruneTo(
        macs=share if measure == "macs" else None,
        parameters=share if measure == "parameters" else None,
        filters=min(MAX_FILTERS, arguments.count),
        every=arguments.batches,
    )
    unit = "MACs" if measure == "macs" else "parameters"
    tab.edit_queue.send_control(request, f"Start pruning to {share:.0%} of the {unit}")


def control_pruning(tab: TabState, arguments: CommandArguments) -> None:
    """Pause, continue, end or undo the pruning."""
    for action in get_args(PruningAction):
        if action == arguments.action:
            tab.edit_queue.send_control(ControlPruning(action), TITLES[action])


def set_verdict_policy(tab: TabState, arguments: CommandArguments) -> None:
    """Set what the run does with its verdicts: nothing, propose remedies, or apply free ones."""
    for policy in get_args(Policy):
        if policy == arguments.option:
            tab.edit_queue.send_control(SetPolicy(policy), "Set the policy")
