"""Checkpoints of an edited run, for a model class that knows nothing of the edits.

Saving: `state_to_save` gives what belongs into the checkpoint, under `STATE_KEY`. Resuming:
`replay_for_load` gives the fresh model the edited structure before its weights are loaded, and
`order_param_groups` gives fresh optimizers the order of parameters their saved state has. An
optimizer's state dict knows parameters by position only, and an inserted layer's stand at the end
of their group in the run that inserted them, but in module order in a fresh optimizer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.editor import Editor
from revacnn_lightning.steering.journal import Journal

__all__ = [
    "STATE_KEY",
    "find_state",
    "load_edited",
    "order_param_groups",
    "replay_for_load",
    "state_to_save",
]

STATE_KEY = "revacnn_steering"
M = TypeVar("M", bound=nn.Module)


def state_to_save(editor: Editor) -> dict[str, Any]:
    """The journal, and the parameter names of every group of every optimizer.

    Dicts, lists, strings, numbers and tensors only: it loads under ``weights_only=True``.
    """
    return {
        "journal": editor.journal.to_data(),
        "parameters": parameter_names(editor.model, editor.optimizers),
    }


def parameter_names(model: nn.Module, optimizers: Sequence[Optimizer]) -> list[list[list[str]]]:
    """[optimizer][group][position] -> name; "" for a parameter that is not the model's."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]
        for optimizer in optimizers
    ]


def find_state(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """What `state_to_save` put into a checkpoint: at its top, or in some callback's state."""
    holders = [checkpoint, *checkpoint.get("callbacks", {}).values()]
    for holder in holders:
        if isinstance(holder, dict) and STATE_KEY in holder:
            state: dict[str, Any] = holder[STATE_KEY]
            return state
    return None


def replay_for_load(model: nn.Module, state: dict[str, Any]) -> Journal:
    """Give a fresh model the structure its weights were saved with. Call before loading them.

    Returns the journal, with which an `Editor` of the model goes on (and undoes).

    Raises:
        SteeringError: the model is not of the class that was edited; it is unchanged.
    """
    journal = Journal.from_data(state["journal"])
    journal.replay(model)
    return journal


def order_param_groups(
    model: nn.Module, optimizers: Sequence[Optimizer], state: dict[str, Any]
) -> None:
    """Bring the parameters of fresh optimizers into the groups and order they were saved in.

    Call before the optimizers' states are loaded. Does nothing if the order is right.

    Raises:
        SteeringError: the optimizers do not have the groups or the parameters that were saved;
            they are unchanged.
    """
    saved: list[list[list[str]]] = state["parameters"]
    present = parameter_names(model, optimizers)
    if present == saved:
        return
    if [len(groups) for groups in present] != [len(groups) for groups in saved]:
        raise SteeringError("the checkpoint was written with other optimizers or parameter groups")
    for ours, theirs in zip(present, saved, strict=True):
        now = sorted(name for group in ours for name in group)
        then = sorted(name for group in theirs for name in group)
        if now != then:
            differing = sorted(set(now) ^ set(then))
            raise SteeringError(
                "the optimizer trains other parameters than the one that was saved: "
                + ", ".join(differing[:6])
            )
    by_name = dict(model.named_parameters())
    for optimizer, groups in zip(optimizers, saved, strict=True):
        foreign = [p for g in optimizer.param_groups for p in g["params"] if not _in(p, by_name)]
        for group, names in zip(optimizer.param_groups, groups, strict=True):
            group["params"][:] = [by_name[n] if n else foreign.pop(0) for n in names]


def _in(parameter: nn.Parameter, named: dict[str, nn.Parameter]) -> bool:
    return any(each is parameter for each in named.values())


def load_edited(
    make: Callable[..., M], path: str | Path, map_location: Any = "cpu", **kwargs: Any
) -> M:
    """The edited model of a checkpoint, in evaluation mode, without a Trainer.

    Args:
        make: the unedited model class, or a function that makes one. It is called with those of
            the checkpoint's hyper-parameters it has arguments for, and with ``kwargs``.
        path: a checkpoint file; only tensors and plain data are read from it.
        map_location: as for ``torch.load``.

    Raises:
        SteeringError: the checkpoint holds no weights, or ``make`` gives another network.
    """
    checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if weights is None:
        raise SteeringError(f"{Path(path).name} is no checkpoint: it has no 'state_dict'")
    model = make(**{**_accepted(make, checkpoint.get("hyper_parameters", {})), **kwargs})
    state = find_state(checkpoint)
    if state is not None:
        replay_for_load(model, state)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise SteeringError(f"the weights do not fit the edited network: {error}") from error
    return model.eval()


def _accepted(make: Callable[..., Any], hyper_parameters: dict[str, Any]) -> dict[str, Any]:
    """Those hyper-parameters that ``make`` has an argument for."""
    parameters = inspect.signature(make).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(hyper_parameters)
    named = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
    return {key: value for key, value in hyper_parameters.items() if key in named}
