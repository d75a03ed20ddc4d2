"""The requests of a trial of edits. `requests` exports them with all others."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from revacnn_lightning.protocol.edit_requests import NetworkEdit, SetHyperparameter

__all__ = [
    "MAX_TRIAL_BATCHES",
    "MAX_TRIAL_EDITS",
    "DiscardTrial",
    "KeepTrial",
    "TrialCommand",
    "TrialEdit",
    "TryEdits",
]

MAX_TRIAL_EDITS = 16
MAX_TRIAL_BATCHES = 200  # the losses of all of them are part of each status

TrialEdit = NetworkEdit | SetHyperparameter


class TryEdits(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Train the edited and the unedited network on the same next ``batches``, and wait.

    The training goes on unedited for these batches. Then the edited network trains on them, too,
    from the state before the first of them and with the same random states. Nothing of it shows in
    the training, which waits for `KeepTrial` or `DiscardTrial`; resuming it discards the trial.
    ``trial`` of `Status` has the losses of both. All edits name filters as they are before the
    trial. ``dry_run`` requests what the trial costs.
    """

    edits: Annotated[list[TrialEdit], Meta(min_length=1, max_length=MAX_TRIAL_EDITS)]
    batches: Annotated[int, Meta(ge=2, le=MAX_TRIAL_BATCHES)] = 20


class KeepTrial(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Continue the training with the edited network of a trial, as it is after its batches.

    The edits can be undone like any other.
    """


class DiscardTrial(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Continue the training with the unedited network, as if there had been no trial.

    A trial that has no result yet ends.
    """


TrialCommand = TryEdits | KeepTrial | DiscardTrial
