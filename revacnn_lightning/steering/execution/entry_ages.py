"""The ages of the entries that edits add to a parameter: how many optimizer steps they have taken.

An optimizer counts its steps per parameter, so a new entry inherits the count of the others. What
depends on the count, such as Adam's bias correction, is wrong for it: `young_entries` corrects that
with the ages.

An edit adds whole slices of one dimension, so ages are kept per index of each dimension, as a
tensor that broadcasts to the parameter; the age of an entry is the smallest. Edits change these
tensors as they change optimizer state. In between, the step at which an index was born is stored,
beside the optimizers: their state dicts remain those of the user.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from revacnn_lightning.steering.execution.transaction import Transaction

__all__ = [
    "age_corrected_torch_class",
    "ages_along_dims",
    "ages_to_data",
    "assign_ages",
    "birth_steps_along_dims",
    "birth_steps_by_prefixed_key",
    "default_for_unrecorded_state",
    "exclude_step_from_ages",
    "forget_birth_steps",
    "is_entry_age_key",
    "parameters_with_young_entries",
    "restore_ages_from_data",
    "restore_recorded_birth_steps",
]

# Optimizers with a correction that depends on the count of steps. The others start new entries
# correctly from initial state (SGD, Adadelta, Rprop), or their count is a schedule for all entries
# (the decay of the learning rate of Adagrad and ASGD).
CORRECTED: tuple[type[Optimizer], ...] = (Adam, AdamW, NAdam, RAdam, Adamax, RMSprop)
MATURE = math.inf  # the age of entries that need no correction

_Births = dict[int, Tensor]  # dimension -> step at which each index was born, on the host
_births: WeakKeyDictionary[Optimizer, dict[Tensor, _Births]] = WeakKeyDictionary()


def age_corrected_torch_class(optimizer: Optimizer) -> type[Optimizer] | None:
    """Return the torch class whose step this optimizer takes; None if no step needs correction."""
    step = inspect.unwrap(type(optimizer).step)
    return next((c for c in CORRECTED if inspect.unwrap(c.step) is step), None)


def _step(optimizer: Optimizer, parameter: Tensor) -> float | None:
    """Return the number of steps taken for a parameter; None if ages do not matter for it."""
    step = optimizer.state.get(parameter, {}).get("step")
    if step is None or parameter.is_complex() or age_corrected_torch_class(optimizer) is None:
        return None
    return float(step)


def ages_along_dims(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """Return the ages along each dimension of a parameter, by key; {} if they do not matter."""
    step = _step(optimizer, parameter)
    if step is None:
        return {}
    births = birth_steps_along_dims(optimizer, parameter)
    ages = {}
    for dim, size in enumerate(parameter.shape):
        shape = [1] * parameter.ndim
        shape[dim] = size
        mature = torch.full(shape, MATURE, dtype=torch.float64)
        ages[f"age{dim}"] = (step - births[dim]).clamp(min=0) if dim in births else mature
    return ages


def assign_ages(
    tx: Transaction, optimizer: Optimizer, parameter: Tensor, key: str, ages: Tensor
) -> None:
    """Set the ages that `ages_along_dims` returned with this ``key``."""
    step = _step(optimizer, parameter) or 0.0
    steps = {
        **birth_steps_along_dims(optimizer, parameter),
        int(key.removeprefix("age")): step - ages,
    }
    _set_births(tx, optimizer, parameter, steps)


def _set_births(tx: Transaction, optimizer: Optimizer, parameter: Tensor, births: _Births) -> None:
    """Store the births of a parameter, if it has any young entries."""
    by_parameter = _births.setdefault(optimizer, {})
    old = by_parameter.pop(parameter, None)
    if any(steps.isfinite().any() for steps in births.values()):
        by_parameter[parameter] = births

    def restore() -> None:
        by_parameter.pop(parameter, None)
        if old is not None:
            by_parameter[parameter] = old

    tx.on_rollback(restore)


def is_entry_age_key(key: str) -> bool:
    """Return whether a key, perhaps after that of the optimizer, is one of `ages_along_dims`."""
    return key.rpartition(".")[2][:3] == "age"


def default_for_unrecorded_state(
    record: Mapping[str, Any], state_key: str, initial_value: float | None
) -> float | None:
    """Return what a restored entry gets for an optimizer state that was not recorded.

    It is ``initial_value``, except for some ages: an entry with recorded state but without an age
    was recorded by an earlier version; it is mature.
    """
    optimizer = state_key.partition(".")[0] + "."
    if is_entry_age_key(state_key) and any(
        each.startswith(optimizer) and not is_entry_age_key(each) for each in record
    ):
        return MATURE
    return initial_value


def _fit(births: _Births, parameter: Tensor) -> bool:
    return all(
        b.ndim == parameter.ndim
        and all(n in (size, 1) for n, size in zip(b.shape, parameter.shape, strict=True))
        for b in births.values()
    )


def birth_steps_along_dims(optimizer: Optimizer, parameter: Tensor) -> _Births:
    """Return the step at which each index of a dimension was born; -inf: mature long ago.

    An entry was born at the latest of the steps of its indices.
    """
    births = _births.get(optimizer, {}).get(parameter, {})
    # They do not fit if the optimizer had no state at an edit: then all entries start alike.
    return births if _fit(births, parameter) else {}


def parameters_with_young_entries(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters with entries that may be young."""
    return list(_births.get(optimizer, {}))


def forget_birth_steps(optimizer: Optimizer, parameter: Tensor) -> None:
    """Forget the births of a parameter whose entries are mature."""
    _births.get(optimizer, {}).pop(parameter, None)


def exclude_step_from_ages(
    optimizer: Optimizer, parameter: Tensor, dim: int, indices: Tensor
) -> None:
    """Move the births of these indices by one step, so that this step does not age them."""
    births = birth_steps_along_dims(optimizer, parameter).get(dim)
    if births is not None:
        births.index_add_(dim, indices, torch.ones_like(births.index_select(dim, indices)))


# ------------------------------------------------------------ removed layers and checkpoints


def birth_steps_by_prefixed_key(
    optimizer: Optimizer, parameter: Tensor, key_prefix: str
) -> dict[str, Tensor]:
    """Return the births of a parameter about to be removed, with ``key_prefix`` before each key."""
    births = birth_steps_along_dims(optimizer, parameter)
    return {f"{key_prefix}{dim}": steps.clone() for dim, steps in births.items()}


def restore_recorded_birth_steps(
    tx: Transaction, optimizer: Optimizer, parameter: Tensor, recorded: Mapping[str, Tensor]
) -> None:
    """Restore the births of a parameter that returns with its state; keys have no prefix here."""
    births = {int(dim): steps.clone() for dim, steps in recorded.items()}
    _set_births(tx, optimizer, parameter, births)


def ages_to_data(model: nn.Module, optimizers: Sequence[Optimizer]) -> list[dict[str, Any]]:
    """Return the ages of all entries as plain data: parameter name -> births, per optimizer."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return [
        {
            names[p]: {str(dim): steps.clone() for dim, steps in births.items()}
            for p, births in _births.get(optimizer, {}).items()
            if p in names
        }
        for optimizer in optimizers
    ]


def restore_ages_from_data(
    model: nn.Module, optimizers: Sequence[Optimizer], saved: Sequence[dict[str, Any]]
) -> None:
    """Give fresh optimizers the ages that `ages_to_data` returned.

    Call this before the `Editor` is made. The ages apply once the optimizers have loaded their
    state.
    """
    parameters = dict(model.named_parameters())
    for optimizer, by_name in zip(optimizers, saved, strict=False):
        _births[optimizer] = {
            parameters[name]: {int(dim): steps for dim, steps in births.items()}
            for name, births in by_name.items()
            if name in parameters
        }
