"""Checkpoints of an edited run, for a model class that does not contain the edits.

Saving: `add_edits` stores the journal in a checkpoint under `STATE_KEY`. Loading:
`adopt_structure` gives a model the structure of a checkpoint before its weights are loaded, and
`regroup_parameters_as_saved` puts the parameters of fresh optimizers in the order of their saved
state. An optimizer's state dict identifies parameters by position only; those of an inserted layer
are at the end of their group in the run that inserted it, but in module order in a fresh optimizer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering import edit_mark, edited_models
from revacnn_lightning.steering.execution import entry_ages
from revacnn_lightning.steering.holders.copies import CopyTracker
from revacnn_lightning.steering.holders.model_copy import ModelPartCopy
from revacnn_lightning.steering.holders.object_walk import CopyHolder
from revacnn_lightning.steering.journal import Journal, change_structure

__all__ = [
    "STATE_KEY",
    "add_edits",
    "adopt_journal_of_loaded_weights",
    "adopt_structure",
    "find_edit_state",
    "inserted_layer_names",
    "parameter_names",
    "regroup_parameters_as_saved",
    "restore_entry_ages",
    "saved_parameter_names",
]

log = logging.getLogger(__name__)

STATE_KEY = "revacnn_steering"


def add_edits(
    checkpoint: dict[str, Any], model: nn.Module, optimizers: Sequence[Optimizer] = ()
) -> None:
    """Add the journal of an edited model and the names of all optimized parameters to a checkpoint.

    The stored data are dicts, lists, strings, numbers and tensors: they load under
    ``weights_only=True``. The checkpoint of an unedited model stays as it is.
    """
    journal = edited_models.find_journal(model)
    if journal is None or journal.version == 0:
        return
    checkpoint[STATE_KEY] = {
        "journal": journal.to_data(),
        "parameters": parameter_names(model, optimizers),
        "ages": entry_ages.ages_to_data(model, optimizers),
    }
    edit_mark.mark_state_dict(model, checkpoint.get("state_dict"))


def parameter_names(model: nn.Module, optimizers: Sequence[Optimizer]) -> list[list[list[str]]]:
    """Return [optimizer][group][position] -> name; "" for a parameter of no module."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]
        for optimizer in optimizers
    ]


def find_edit_state(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the saved state in a checkpoint: at its top level, or in a callback's state."""
    holders = [checkpoint, *checkpoint.get("callbacks", {}).values()]
    for holder in holders:
        if isinstance(holder, dict) and STATE_KEY in holder:
            state: dict[str, Any] = holder[STATE_KEY]
            return state
    return None


# -------------------------------------------------------------------- structure


def adopt_structure(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    optimizers: Sequence[Optimizer] = (),
    holders: Sequence[CopyHolder] = (),
    declared_copies: Mapping[str, str | None] | None = None,
) -> None:
    """Give a model the structure of the weights in a checkpoint. Call before loading them.

    The model may be unedited, or edited in another way: edits that the checkpoint does not have
    are reverted, with the state of ``optimizers``. The same happens to copies of the model, such
    as averages, whose weights are also loaded.

    Args:
        holders: objects that may hold copies of the model, such as callbacks.
        declared_copies: the argument ``copies`` of `Editor`.

    Raises:
        SteeringError: the checkpoint is that of another network; the model is unchanged.
    """
    edit_mark.unmark_state_dict(checkpoint.get("state_dict"))
    copies = CopyTracker(model, declared_copies).find(optimizers, holders).outside
    _adopt(model, checkpoint, optimizers, copies)


def _adopt(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    optimizers: Sequence[Optimizer],
    copies: Sequence[ModelPartCopy],
) -> None:
    present = edited_models.find_journal(model)
    state = find_edit_state(checkpoint)
    if state is None:
        if present is not None and present.entries:
            _revert_edits(model, present, checkpoint, optimizers, copies)
        elif edited_models.mismatched_weights(model, checkpoint.get("state_dict") or {}):
            log.warning(
                "The weights in the checkpoint do not fit the network, and it contains no edits. "
                "If the network was edited, it was saved by a trainer without ReVACNN, or with "
                "weights only after training: use revacnn_lightning.load_edited(..., "
                "edits_from=...) with another checkpoint of the same run"
            )
        return
    target = Journal.from_data(state["journal"])
    if present is None and edited_models.has_structure_of_journal(model, target):
        edited_models.remember_edits(model, target)
        return
    if present is None and edit_mark.is_marked_edited(model):
        raise SteeringError(
            "the model is a copy of an edited one, and its edits are unknown in this process; pass "
            f"an unedited model, such as {type(model).__name__}()"
        )
    try:
        change_structure(model, present or Journal(), target, optimizers, copies=copies)
    except SteeringError as error:
        raise SteeringError(
            f"the edits in the checkpoint ({_titles(target)}) cannot be repeated: {error}; pass an "
            "unedited model of the class that was trained"
        ) from error
    edited_models.remember_edits(model, target)


def adopt_journal_of_loaded_weights(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Adopt the journal of a checkpoint whose weights the model already has.

    Strategies that split the parameters load the weights first. So the edits must have changed no
    structure, such as those of `ShardedFreezeAndRateEditor`, or the model must have been built
    with it.

    Raises:
        SteeringError: the model has another structure; its edits so far remain.
    """
    edit_mark.unmark_state_dict(checkpoint.get("state_dict"))
    state, present = find_edit_state(checkpoint), edited_models.find_journal(model)
    if state is None and (present is None or not _was_saved_with_callback(checkpoint)):
        return
    target = Journal() if state is None else Journal.from_data(state["journal"])
    if not edited_models.has_structure_of_journal(model, target):
        raise SteeringError(
            f"the edits in the checkpoint ({_titles(target)}) have changed the structure, but its "
            "weights were loaded before the edits were known"
        )
    edited_models.remember_edits(model, target)


def _revert_edits(
    model: nn.Module,
    present: Journal,
    checkpoint: Mapping[str, Any],
    optimizers: Sequence[Optimizer],
    copies: Sequence[ModelPartCopy],
) -> None:
    """Give a model its unedited structure, unless the weights fit it as it is.

    A trainer without the callback saves the weights of an edited model without its edits.
    """
    weights = checkpoint.get("state_dict")
    if weights is None or (
        edited_models.has_weight_shapes(model, weights) and not _was_saved_with_callback(checkpoint)
    ):
        return

    def check() -> None:
        different = edited_models.mismatched_weights(model, weights)
        if different:
            raise SteeringError(
                f"the weights in the checkpoint, such as {different[0]}, fit the network neither "
                f"with its edits ({_titles(present)}) nor without them, and the checkpoint "
                "contains no edits. It may have been saved by a trainer without ReVACNN, or with "
                "weights only after training; load another checkpoint of the same run, or use "
                "revacnn_lightning.load_edited(..., edits_from=another_checkpoint)"
            )

    change_structure(model, present, Journal(), optimizers, check, copies)
    edited_models.remember_edits(model, Journal())


def _was_saved_with_callback(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether the callback took part in saving: then no edits means an unedited model."""
    return "ReVACNN" in checkpoint.get("callbacks", {})


def _titles(journal: Journal) -> str:
    titles = [entry.plan.title for entry in journal.entries]
    shown = "; ".join(titles[:4])
    return f"{shown}; and {len(titles) - 4} more" if len(titles) > 4 else shown


# -------------------------------------------------------------------- optimizers


def regroup_parameters_as_saved(
    optimizer: Optimizer,
    model: nn.Module,
    saved_names: Sequence[Sequence[str]],
    inserted_names: Sequence[str],
) -> None:
    """Put the parameters of a fresh optimizer in the groups and the order of the saved names.

    Args:
        inserted_names: the names of the layers that edits have inserted. Their parameters
            may be missing from a group, or be in a group whose saved one does not list them.

    Raises:
        SteeringError: the optimizer has other groups or parameters; it is unchanged.
    """
    [present] = parameter_names(model, [optimizer])
    if present == saved_names:
        return
    if len(present) != len(saved_names):
        raise SteeringError(
            f"the checkpoint was written with {len(saved_names)} parameter groups, but the "
            f"optimizer has {len(present)}; configure the same groups"
        )
    names = {name for group in present for name in group}
    differing = sorted(names ^ {name for group in saved_names for name in group})
    if any(
        not name.startswith(tuple(f"{layer}." for layer in inserted_names)) for name in differing
    ):
        raise SteeringError(
            "the optimizer trains other parameters than the saved one: " + ", ".join(differing[:6])
        )
    by_name = dict(model.named_parameters())
    known = {id(p) for p in by_name.values()}
    unnamed = [p for g in optimizer.param_groups for p in g["params"] if id(p) not in known]
    for group, group_names in zip(optimizer.param_groups, saved_names, strict=True):
        group["params"][:] = [by_name[n] if n else unnamed.pop(0) for n in group_names]


def restore_entry_ages(
    model: nn.Module, optimizers: Sequence[Optimizer], state: Mapping[str, Any]
) -> None:
    """Restore the ages of the entries that were young when the checkpoint was saved.

    Call before the optimizers load their state, and before an `Editor` gets them.
    """
    entry_ages.restore_ages_from_data(model, optimizers, state.get("ages", []))


def saved_parameter_names(state: Mapping[str, Any], optimizer_count: int) -> list[list[list[str]]]:
    """Return the names of the parameters of all groups in a saved state: one list per optimizer.

    Raises:
        SteeringError: there were not as many optimizers; it is not an error that none was saved.
    """
    saved: list[list[list[str]]] = state["parameters"]
    if saved and len(saved) != optimizer_count:
        raise SteeringError(
            f"the checkpoint was written with {len(saved)} optimizers, but there are "
            f"{optimizer_count}; configure the same ones"
        )
    return saved


def inserted_layer_names(state: Mapping[str, Any]) -> list[str]:
    """Return the names of the layers that the edits in a saved state have inserted."""
    journal = Journal.from_data(state["journal"])
    layers = [layer for entry in journal.entries for layer in entry.plan.layers]
    return [f"{layer.host}.{layer.child}" for layer in layers if layer.action == "insert"]
