"""Edited networks on their way back from processes that were started for a training.

With ``ddp_spawn``, ``ddp_fork`` and ``ddp_notebook``, Lightning trains in new processes and loads
the weights of the first one when they end. The network of the starting process was never edited.
Therefore the weights carry the edits, and a hook that loads them adopts these first.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.checkpoint import STATE_KEY, adopt_structure
from revacnn_lightning.steering.edited_models import find_journal

__all__ = [
    "add_edits_to_state_dict",
    "adopt_edits_when_loaded",
    "has_adopt_edits_hook",
    "was_started_by_multiprocessing",
]

KEY = "revacnn_edits"  # among the weights
MARK = "adopts_edits_of_ReVACNN"  # an attribute, which a pickled network keeps


def was_started_by_multiprocessing(trainer: Any) -> bool:
    """Return whether a multiprocessing launcher of Lightning has started this process."""
    launcher = getattr(getattr(trainer, "strategy", None), "launcher", None)
    return type(launcher).__name__ == "_MultiProcessingLauncher"


def has_adopt_edits_hook(module: nn.Module) -> bool:
    """Return whether a network has the hook of `adopt_edits_when_loaded`."""
    return hasattr(module, MARK)


def adopt_edits_when_loaded(module: nn.Module) -> None:
    """Let a network adopt the edits that its weights carry, whenever weights are loaded."""
    if not has_adopt_edits_hook(module):
        module.register_load_state_dict_pre_hook(_adopt)
        vars(module)[MARK] = True


def add_edits_to_state_dict(module: nn.Module) -> None:
    """Add the edits of a network to what its `nn.Module.state_dict` returns from now on."""
    module.register_state_dict_post_hook(_add)


def _add(module: nn.Module, weights: dict[str, Any], prefix: str, metadata: Any) -> None:
    journal = find_journal(module)
    if prefix == "" and journal is not None and journal.changes_structure:
        data = journal.without_values().to_data()
        packed = msgspec.msgpack.encode({k: data[k] for k in ("format", "version", "plans")})
        weights[KEY] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _adopt(
    module: nn.Module,
    weights: dict[str, Any],
    prefix: str,
    metadata: Any,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    packed = weights.pop(prefix + KEY, None) if prefix == "" else None
    if not isinstance(packed, Tensor):
        return
    journal = msgspec.msgpack.decode(packed.numpy().tobytes())
    try:
        adopt_structure(module, {STATE_KEY: {"journal": journal}, "state_dict": weights})
    except SteeringError as error:
        errors.append(str(error))
