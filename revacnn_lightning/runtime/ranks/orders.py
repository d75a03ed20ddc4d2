"""What the leader orders the other processes to do, while all of them stop before a batch."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from revacnn_lightning.protocol.requests import SetHyperparameter
from revacnn_lightning.steering import EditPlan

__all__ = [
    "Order",
    "Perform",
    "Proceed",
    "Save",
    "SetValue",
    "StopTraining",
    "Wait",
    "decode_order",
]


class Perform(Struct, frozen=True, tag=True):
    """Perform a plan, which the leader has performed and verified.

    ``adopts_replaced``: adopt the layers that the model's code has replaced before.
    """

    plan: EditPlan
    adopts_replaced: bool = False


class SetValue(Struct, frozen=True, tag=True):
    """Set a hyperparameter."""

    command: SetHyperparameter


class Save(Struct, frozen=True, tag=True):
    """Save a checkpoint of this name: saving is a collective."""

    name: str


class StopTraining(Struct, frozen=True, tag=True):
    """End the training after this batch."""


class Wait(Struct, frozen=True, tag=True):
    """Wait for another order: the run is paused."""


class Proceed(Struct, frozen=True, tag=True):
    """Train the batch.

    ``is_urgent``: the next exchange is due at the next batch. ``is_last``: there is none, because
    the leader serves no more requests.
    """

    is_urgent: bool = False
    is_last: bool = False


Order = Perform | SetValue | Save | StopTraining | Wait | Proceed
_decoder = msgspec.msgpack.Decoder(Order)


def encode_order(order: Order) -> bytes:
    """Return an order as bytes."""
    return msgspec.msgpack.encode(order)


def decode_order(data: bytes) -> Order:
    """Return the order that `encode_order` returned the bytes of."""
    order: Order = _decoder.decode(data)
    return order
