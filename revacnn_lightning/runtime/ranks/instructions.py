"""What rank 0 instructs the other ranks to do, while all of them have stopped before a batch."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from revacnn_lightning.protocol.requests import SettingCommand
from revacnn_lightning.steering import EditPlan

__all__ = [
    "ApplySetting",
    "Instruction",
    "PerformPlan",
    "Proceed",
    "SaveCheckpoint",
    "StopTraining",
    "Wait",
    "decode_instruction",
]


class PerformPlan(Struct, frozen=True, tag="Perform"):
    """Perform an edit plan, which rank 0 has performed and verified.

    ``adopts_replaced``: first adopt the layers that the model's code has replaced.
    """

    plan: EditPlan
    adopts_replaced: bool = False


class ApplySetting(Struct, frozen=True, tag="SetValue"):
    """Set a hyperparameter, or the gradient clipping."""

    command: SettingCommand


class SaveCheckpoint(Struct, frozen=True, tag="Save"):
    """Save a checkpoint of this name: saving is a collective."""

    name: str


class StopTraining(Struct, frozen=True, tag=True):
    """End the training after this batch."""


class Wait(Struct, frozen=True, tag=True):
    """Keep waiting for the next instruction: the run is paused."""


class Proceed(Struct, frozen=True, tag=True):
    """End the stop and train the batch.

    ``is_urgent``: the next broadcast of `DecisionBroadcast` is due at the next batch. ``is_last``:
    no broadcast follows, because rank 0 serves no more requests.
    """

    is_urgent: bool = False
    is_last: bool = False


Instruction = PerformPlan | ApplySetting | SaveCheckpoint | StopTraining | Wait | Proceed
_decoder = msgspec.msgpack.Decoder(Instruction)


def encode_instruction(instruction: Instruction) -> bytes:
    """Return an instruction as bytes."""
    return msgspec.msgpack.encode(instruction)


def decode_instruction(data: bytes) -> Instruction:
    """Return the instruction that `encode_instruction` returned the bytes of."""
    instruction: Instruction = _decoder.decode(data)
    return instruction
