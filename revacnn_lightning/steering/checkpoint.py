"""Checkpoints of an edited run, for a model class that does not contain the edits.

Saving: `state_to_save` returns what the checkpoint stores under `STATE_KEY`. Resuming:
`replay_for_load` edits the fresh model before its weights are loaded, and `order_param_groups`
brings the parameters of fresh optimizers into the order of their saved state. An optimizer's state
dict identifies parameters by position only; those of an inserted layer are at the end of their
group in the run that inserted it, but in module order in a fresh optimizer.
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
from revacnn_lightning.steering.execution import entry_ages
from revacnn_lightning.steering.journal import Journal

__all__ = [
    "STATE_KEY",
    "find_state",
    "load_edited",
    "order_param_groups",
    "replay_for_load",
    "restore_ages",
    "state_to_save",
]

STATE_KEY = "revacnn_steering"
M = TypeVar("M", bound=nn.Module)


def state_to_save(editor: Editor) -> dict[str, Any]:
    """Return the journal, the parameter names of every group, and the ages of new entries.

    Dicts, lists, strings, numbers and tensors only: they load under ``weights_only=True``.
    """
    return {
        "journal": editor.journal.to_data(),
        "parameters": parameter_names(editor.model, editor.optimizers),
        "ages": entry_ages.saved_ages(editor.model, editor.optimizers),
    }


def parameter_names(model: nn.Module, optimizers: Sequence[Optimizer]) -> list[list[list[str]]]:
    """Return [optimizer][group][position] -> name; "" for a parameter of no module."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]
        for optimizer in optimizers
    ]


def find_state(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """Return the saved state in a checkpoint: at its top level, or in a callback's state."""
    holders = [checkpoint, *checkpoint.get("callbacks", {}).values()]
    for holder in holders:
        if isinstance(holder, dict) and STATE_KEY in holder:
            state: dict[str, Any] = holder[STATE_KEY]
            return state
    return None


def replay_for_load(model: nn.Module, state: dict[str, Any]) -> Journal:
    """Give a fresh model the structure its weights were saved with. Call before loading them.

    Returns the journal, with which an `Editor` of the model continues and undoes.

    Raises:
        SteeringError: the model is not an instance of the edited class; it is unchanged.
    """
    journal = Journal.from_data(state["journal"])
    journal.replay(model)
    return journal


def order_param_groups(
    model: nn.Module, optimizers: Sequence[Optimizer], state: dict[str, Any]
) -> None:
    """Bring the parameters of fresh optimizers into the groups and order they were saved in.

    Call before the optimizers' states are loaded. Does nothing if the order is correct.

    Raises:
        SteeringError: the optimizers have other groups or parameters than the saved ones; they
            are unchanged.
    """
    saved: list[list[list[str]]] = state["parameters"]
    present = parameter_names(model, optimizers)
    if present == saved:
        return
    if [len(groups) for groups in present] != [len(groups) for groups in saved]:
        raise SteeringError(
            "the checkpoint was written with other optimizers or parameter groups; configure the "
            "same ones"
        )
    for present_groups, saved_groups in zip(present, saved, strict=True):
        present_names = sorted(name for group in present_groups for name in group)
        saved_names = sorted(name for group in saved_groups for name in group)
        if present_names != saved_names:
            differing = sorted(set(present_names) ^ set(saved_names))
            raise SteeringError(
                "the optimizer trains other parameters than the saved one: "
                + ", ".join(differing[:6])
            )
    by_name = dict(model.named_parameters())
    for optimizer, groups in zip(optimizers, saved, strict=True):
        foreign = [p for g in optimizer.param_groups for p in g["params"] if not _is_in(p, by_name)]
        for group, names in zip(optimizer.param_groups, groups, strict=True):
            group["params"][:] = [by_name[n] if n else foreign.pop(0) for n in names]


def restore_ages(model: nn.Module, optimizers: Sequence[Optimizer], state: dict[str, Any]) -> None:
    """Let entries that were young when the checkpoint was saved continue at the age they had.

    Call before an `Editor` gets the fresh optimizers.
    """
    entry_ages.restore_ages(model, optimizers, state.get("ages", []))


def _is_in(parameter: nn.Parameter, named: dict[str, nn.Parameter]) -> bool:
    return any(each is parameter for each in named.values())


def load_edited(
    make: Callable[..., M], path: str | Path, map_location: Any = "cpu", **kwargs: Any
) -> M:
    """Return the edited model of a checkpoint, in evaluation mode. Needs no Trainer.

    Args:
        make: the unedited model class, or a function that returns an unedited model. It is called
            with those of the checkpoint's hyperparameters that it accepts, and with ``kwargs``.
        path: a checkpoint file; only tensors and plain data are loaded from it.
        map_location: as for ``torch.load``.

    Raises:
        SteeringError: the checkpoint has no weights, or ``make`` returns another network.
    """
    checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if weights is None:
        raise SteeringError(f"{Path(path).name} is not a checkpoint: it has no 'state_dict'")
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
    """Return the hyperparameters that ``make`` has an argument for."""
    parameters = inspect.signature(make).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(hyper_parameters)
    named = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
    return {key: value for key, value in hyper_parameters.items() if key in named}
