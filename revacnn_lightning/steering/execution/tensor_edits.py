"""Applies a `TensorEdit` to a parameter or buffer in place, and reverts it.

Parameters keep their identity (`replacement.replace_data`), so optimizers, schedulers and hooks
that refer to them stay valid. What an edit removes is kept in a
`ChangeRecord`, from which it is restored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import entry_ages, optimizer_state
from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.replacement import ChangeRecord, replace_data
from revacnn_lightning.steering.execution.tensor_resize import Resize
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.weight_gain import initialize_gain, rescale_gain
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import TensorEdit

__all__ = ["apply_tensor_edit", "revert_tensor_edit", "subtract_change"]


def apply_tensor_edit(
    tx: Transaction,
    model: nn.Module,
    edit: TensorEdit,
    optimizers: Sequence[Optimizer],
    initializer: Initializer,
    redo_record: ChangeRecord | None = None,
) -> ChangeRecord:
    """Resize a tensor, its gradient, its optimizer state, and the gain of its weight norm.

    Args:
        redo_record: what `revert_tensor_edit` returned, if the edit is redone: its new entries.
    """
    owner, tensor = find_owner_and_tensor(model, edit.tensor)
    resize = Resize(edit)
    record: ChangeRecord = {}
    with torch.no_grad():
        old = tensor.detach()
        if redo_record is not None:
            new = _resized_again(old, resize, redo_record)
        elif edit.origin and edit.fill == "fresh":  # filled from its origin afterwards
            new = resize.apply_and_fill(old, 0.0)
        else:
            new = _resized(owner, tensor, resize, edit, initializer)
        record["data"] = resize.removed_entries(tensor.detach())
        if edit.fill == "share":
            record["before"], record["after"] = tensor.detach().clone(), resize.revert(new, 0.0)
        grad = None
        if tensor.grad is not None:
            record["grad"] = resize.removed_entries(tensor.grad)
            grad = _with_entries(resize, tensor.grad, redo_record, "grad", 0.0)
        if isinstance(tensor, nn.Parameter):
            record |= _resize_state(tx, optimizers, tensor, resize, new, redo_record)
        replace_data(tx, tensor, new, grad)
        if edit.gain:
            record |= rescale_gain(tx, model, edit.gain, old, new, redo_record)
        if edit.entry_gain and edit.fill == "fresh" and redo_record is None and not edit.origin:
            initialize_gain(tx, model, edit.entry_gain, new, edit.dim, edit.new)
    return record


def _resize_state(
    tx: Transaction,
    optimizers: Sequence[Optimizer],
    parameter: nn.Parameter,
    resize: Resize,
    new: Tensor,
    redo_record: ChangeRecord | None,
) -> ChangeRecord:
    """Resize the optimizer state of a parameter that becomes ``new``; return what is removed."""
    shape = parameter.shape
    record: ChangeRecord = {}

    def resized(key: str, old: Tensor, start: float | None) -> Tensor:
        if not resize.matches(old, shape):
            return old
        record[key] = resize.removed_entries(old)
        return _with_entries(resize, old, redo_record, key, new if start is None else start)

    optimizer_state.replace_state_tensors(tx, optimizers, parameter, resized)
    return record


def revert_tensor_edit(
    tx: Transaction,
    model: nn.Module,
    edit: TensorEdit,
    optimizers: Sequence[Optimizer],
    record: ChangeRecord,
) -> ChangeRecord:
    """Undo a `TensorEdit`: restore what it removed; survivors keep their present values.

    Returns:
        The entries that the edit had added, from which it is redone.
    """
    _, tensor = find_owner_and_tensor(model, edit.tensor)
    resize = Resize(edit)
    redo_record: ChangeRecord = {"data": resize.new_entries(tensor.detach())}
    with torch.no_grad():
        old = resize.revert(tensor.detach(), record["data"])
        if "before" in record:
            old = subtract_change(old, record["before"], record["after"])
            redo_record["before"], redo_record["after"] = old.clone(), tensor.detach().clone()
        grad = None
        if tensor.grad is not None:
            redo_record["grad"] = resize.new_entries(tensor.grad)
            grad = resize.revert(tensor.grad, record.get("grad", 0.0))
        if isinstance(tensor, nn.Parameter):
            shape = tensor.shape
            present_size = len(resize.order)

            def reverted(key: str, state: Tensor, start: float | None) -> Tensor:
                if state.ndim != len(shape) or state.shape[resize.dim] != present_size:
                    return state
                if any(a not in (b, 1) for a, b in zip(state.shape, shape, strict=True)):
                    return state
                redo_record[key] = resize.new_entries(state)
                start = entry_ages.default_for_unrecorded_state(record, key, start)
                return resize.revert(state, record.get(key, _start_state(resize, old, start)))

            optimizer_state.replace_state_tensors(tx, optimizers, tensor, reverted)
        present = tensor.detach()
        replace_data(tx, tensor, old, grad)
        if edit.gain:
            redo_record |= rescale_gain(tx, model, edit.gain, present, old, record)
    return redo_record


def _with_entries(
    resize: Resize,
    tensor: Tensor,
    redo_record: ChangeRecord | None,
    key: str,
    start: float | Tensor,
) -> Tensor:
    """Return the resized tensor; new entries are those that an undo removed, else ``start``."""
    if redo_record is not None and key in redo_record:
        return resize.apply_and_insert(tensor, redo_record[key])
    return resize.apply_and_fill(tensor, start)


def _resized_again(data: Tensor, resize: Resize, redo_record: ChangeRecord) -> Tensor:
    """Return the resized tensor with the entries that an undo removed."""
    resized = resize.apply(data)
    if "before" in redo_record:  # a split has changed survivors, too
        before = resize.apply(redo_record["before"].to(data))
        resized = subtract_change(resized, redo_record["after"], before)
    new = resize.new_positions.to(data.device)
    return resized.index_copy_(resize.dim, new, redo_record["data"].to(resized))


def _start_state(resize: Resize, weight: Tensor, start: float | None) -> Tensor | float:
    """Return the state of restored entries that had none when they were removed."""
    return resize.removed_entries(weight) if start is None else start


def subtract_change(now: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return ``now`` minus the change from ``before`` to ``after``, which keeps later training.

    Entries that were not trained since are exactly ``before``.
    """
    before, after = before.to(now), after.to(now)
    return torch.where(now == after, before, now + (before - after))


def _resized(
    owner: nn.Module, tensor: Tensor, resize: Resize, edit: TensorEdit, initializer: Initializer
) -> Tensor:
    """Return the resized tensor with its new entries as ``edit.fill`` says."""
    data = tensor.detach()
    if not edit.new or edit.fill == "copy":
        return resize.apply(data)
    if edit.fill == "zero":
        return resize.apply_and_fill(data, 0.0)
    if edit.fill == "one":
        return resize.apply_and_fill(data, 1.0)
    if edit.fill == "share":
        return resize.apply_keeping_sums(data, initializer.generator)
    resized = resize.apply(data)
    name = edit.tensor.rpartition(".")[2]
    return resize.apply_and_fill(data, initializer.draw(owner, name, resized))
