"""Commands that try staged changes, and decide about what was tried."""

from __future__ import annotations

from revacnn_lightning.protocol.requests import DiscardTrial, KeepTrial

from .command_arguments import CommandArguments
from .tab_state import TabState

__all__ = ["discard_trial", "keep_trial", "set_trial_batches", "try_staged"]


def set_trial_batches(tab: TabState, arguments: CommandArguments) -> None:
    """Set on how many batches staged changes are tried."""
    tab.edit_queue.trial.set_batch_count(arguments.batches)


def try_staged(tab: TabState, _: CommandArguments) -> None:
    """Try all staged changes together."""
    if tab.structure is not None:
        tab.edit_queue.try_staged(tab.structure)


def keep_trial(tab: TabState, _: CommandArguments) -> None:
    """Continue with the edited network."""
    tab.edit_queue.send_control(KeepTrial(), "Keep the trial")


def discard_trial(tab: TabState, _: CommandArguments) -> None:
    """Continue with the unedited network, or end a trial without a result."""
    tab.edit_queue.send_control(DiscardTrial(), "Discard the trial")
