"""All ranks of a training, as the session in rank 0 uses them; or its only process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from revacnn_lightning.protocol.requests import (
    Command,
    ControlRun,
    RequestBody,
    SetGradientClipping,
    SetHyperparameter,
    SettingCommand,
)
from revacnn_lightning.runtime.ranks.rank_statistics import RankStatistics

__all__ = ["AllRanks", "SingleRank", "StopReasons", "changes_all_ranks"]


@dataclass(frozen=True)
class StopReasons:
    """Why all processes have to stop before one of the next batches.

    Attributes:
        is_wanted: whether a request waits for the stop.
        is_edit: whether this request is an edit. Forwards in all processes verify an edit.
        is_pausing: whether the run pauses.
        statistics: the statistics that all ranks record for the viewers; empty without a viewer.
    """

    is_wanted: bool = False
    is_edit: bool = False
    is_pausing: bool = False
    statistics: tuple[str, ...] = ()


class AllRanks(Protocol):
    """All ranks of a training. Each batch is `begin_batch` ... `resume_all_ranks`.

    Attributes:
        size: the number of processes.
        is_stopped: whether all of them have stopped before this batch, to be changed together.
        refusal: why they cannot be changed together; "" if they can.
        statistics: the statistics summed up over all ranks; None if there is only one rank.
    """

    size: int
    is_stopped: bool
    refusal: str

    @property
    def statistics(self) -> RankStatistics | None: ...

    def wait(self) -> None:
        """Keep the other processes waiting: the run is paused."""

    def set_value(self, command: SettingCommand, restore: Callable[[], object]) -> None:
        """Let the others set the same value, too; ``restore`` undoes it here if one fails.

        Raises:
            EditFailedError: it failed in one process.
        """

    def save(self, name: str, save: Callable[[], str]) -> str:
        """Save a checkpoint in all processes together; return the result of ``save``."""

    def stop_training(self) -> None:
        """Let the others end the training after this batch."""

    def note_replaced_layers(self) -> None:
        """Let the others adopt, before the next edit, the layers that the model has replaced."""

    def pop_errors(self) -> list[str]:
        """Return the internal errors of the others since the last call, in words."""


def changes_all_ranks(body: RequestBody, *, dry_run: bool) -> bool:
    """Return whether a request changes all processes, so that they have to stop before a batch."""
    if isinstance(body, ControlRun):
        return body.action != "send_state"
    if isinstance(body, SetHyperparameter):
        return True
    if isinstance(body, SetGradientClipping):
        return not dry_run
    return not isinstance(body, Command) and not dry_run


class SingleRank:
    """The rank of a training in one process, which stops before every batch."""

    size = 1
    is_stopped = True
    refusal = ""
    statistics: RankStatistics | None = None

    def wait(self) -> None:
        """Do nothing: there is no other rank."""

    def set_value(self, command: SettingCommand, restore: Callable[[], object]) -> None:
        """Do nothing: there is no other rank."""

    def save(self, name: str, save: Callable[[], str]) -> str:
        return save()

    def stop_training(self) -> None:
        """Do nothing: there is no other rank."""

    def note_replaced_layers(self) -> None:
        """Do nothing: there is no other rank."""

    def pop_errors(self) -> list[str]:
        return []
