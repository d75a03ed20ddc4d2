"""The history in the callback's state, which Lightning stores in checkpoints.

It is an encoded message in a tensor of bytes. It loads under ``weights_only=True``, and decoding
checks it like a message that has arrived from another machine.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.history.run_history import RunHistory
from revacnn_lightning.protocol.encoding import decode, encode
from revacnn_lightning.protocol.messages import History

__all__ = ["pack_history", "unpack_history"]

log = logging.getLogger(__name__)

KEY = "history"


def pack_history(history: HistoryRecorder | None) -> dict[str, Any]:
    """Return a history as the state of the callback; {} without a history or if storing fails."""
    if history is None:
        return {}
    try:
        frames = [memoryview(frame).tobytes() for frame in encode(history.to_message())]
        packed = bytearray(msgspec.msgpack.encode(frames))
        return {KEY: torch.frombuffer(packed, dtype=torch.uint8)}
    except Exception:  # a bug of this package must not stop the training
        log.warning("The checkpoint is saved without the history of the run", exc_info=True)
        return {}


def unpack_history(state: Mapping[str, Any]) -> HistoryRecorder | None:
    """Return the history from the state of a callback; None if it has none or it is damaged."""
    packed = state.get(KEY)
    if packed is None:
        return None
    try:
        data = packed.cpu().numpy().tobytes()
        message = decode(msgspec.msgpack.decode(data, type=list[bytes]))
        if not isinstance(message, History):
            raise ProtocolError(f"it is a {type(message).__name__}")
        return HistoryRecorder(RunHistory.from_message(message))
    except (AttributeError, ProtocolError, TypeError, ValueError, msgspec.MsgspecError) as error:
        log.warning("The history in the checkpoint is ignored; a new one begins: %s", error)
        return None
