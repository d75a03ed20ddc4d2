"""The requests that a run accepts. They are pure data: a request says what to do, not how.

Layers are named as in ``model.named_modules()``. Filters are indices into a layer's output
channels, valid for the structure version in the request's envelope (`messages.Request`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from revacnn_lightning.protocol.automatic_requests import (
    AutomaticCommand,
    ControlPruning,
    PruneTo,
    SetPolicy,
)
from revacnn_lightning.protocol.edit_requests import (
    AddFilters,
    Edit,
    Freeze,
    InsertLayer,
    MergeFilters,
    Redo,
    Reinitialize,
    RemoveFilters,
    RemoveLayer,
    ScaleLearningRate,
    SetFilter,
    SetGradientClipping,
    SetHyperparameter,
    SettingCommand,
    Undo,
    Unfreeze,
)
from revacnn_lightning.protocol.inspection_requests import (
    InspectClass,
    InspectClasses,
    InspectEvidence,
    InspectFilter,
    InspectGrowth,
    InspectImage,
    Inspection,
    InspectLayer,
    InspectPrices,
    InspectRanks,
    KernelSlice,
    PaintImage,
    Patch,
    ShowPicture,
    Viewing,
)
from revacnn_lightning.protocol.key_requests import KeyCommand, ListKeys, RevokeKey, ShareKey
from revacnn_lightning.protocol.trial_requests import (
    DiscardTrial,
    KeepTrial,
    TrialCommand,
    TryEdits,
)

__all__ = [
    "AddFilters",
    "Command",
    "ControlPruning",
    "ControlRun",
    "DiscardTrial",
    "Edit",
    "Freeze",
    "InsertLayer",
    "InspectClass",
    "InspectClasses",
    "InspectEvidence",
    "InspectFilter",
    "InspectGrowth",
    "InspectImage",
    "InspectLayer",
    "InspectPrices",
    "InspectRanks",
    "Inspection",
    "KeepTrial",
    "KernelSlice",
    "KeyCommand",
    "ListKeys",
    "MergeFilters",
    "PaintImage",
    "Patch",
    "PruneTo",
    "Redo",
    "Reinitialize",
    "RemoveFilters",
    "RemoveLayer",
    "RequestBody",
    "RevokeKey",
    "ScaleLearningRate",
    "SendHistory",
    "SetFilter",
    "SetGradientClipping",
    "SetHyperparameter",
    "SetPolicy",
    "SettingCommand",
    "ShareKey",
    "ShowPicture",
    "StartRecording",
    "StopRecording",
    "TrialCommand",
    "TryEdits",
    "Undo",
    "Unfreeze",
    "Viewing",
    "is_steering",
]


class ControlRun(Struct, frozen=True, tag=True, forbid_unknown_fields=True, omit_defaults=True):
    """Control the run.

    - ``send_state``: send the current structure and status.
    - ``pause``, ``resume``: wait before the next batch, continue.
    - ``step``: train ``batches`` batches, by default one, then pause.
    - ``finish_epoch``: train to the end of the epoch, then pause.
    - ``checkpoint``: save a checkpoint.
    - ``stop``: save a checkpoint and end training.
    """

    action: Literal["send_state", "pause", "resume", "step", "finish_epoch", "checkpoint", "stop"]
    batches: Annotated[int, Meta(ge=1)] = 1


class SendHistory(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send the `messages.History` of the run, as the reply to this request."""


class StartRecording(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Record every batch and all other messages of the run to a file, where the training runs.

    ``file`` is a name without a folder, because the training has chosen the folder; "" stands for a
    new name. No file is overwritten: where there is one, the new one gets a number.
    """

    file: str = ""


class StopRecording(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """End the recording of the run."""


Command = (
    ControlRun
    | SettingCommand
    | InspectLayer
    | InspectFilter
    | InspectImage
    | InspectPrices
    | InspectEvidence
    | InspectGrowth
    | InspectClasses
    | InspectClass
    | InspectRanks
    | ShowPicture
    | PaintImage
    | SendHistory
    | StartRecording
    | StopRecording
    | AutomaticCommand
    | TrialCommand
)
RequestBody = Edit | Command | KeyCommand


def is_steering(body: RequestBody, *, dry_run: bool = False) -> bool:
    """Return whether a request changes the run, so that an observer's key may not send it.

    Plans, inspections, the history, the state and the list of keys change nothing. Every other
    request counts as steering.
    """
    if isinstance(body, Edit | SetGradientClipping):
        return not dry_run
    if isinstance(body, TryEdits) and dry_run:
        return False
    is_state = body == ControlRun("send_state")
    return not (is_state or isinstance(body, Viewing | SendHistory | ListKeys))
