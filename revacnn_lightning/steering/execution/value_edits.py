"""Applies a `ValueEdit` (new values, same size) to a parameter or buffer, and reverts it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import entry_ages, optimizer_state
from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.replacement import ChangeRecord, replace_data
from revacnn_lightning.steering.execution.tensor_edits import subtract_change
from revacnn_lightning.steering.execution.tensor_resize import in_memory_format_of
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.weight_gain import initialize_gain, rescale_gain
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import ONES_OF_NORM, EditPlan, TensorEdit, ValueEdit

__all__ = [
    "apply_value_edit",
    "copy_random_entries_from_origins",
    "randomly_drawn_indices",
    "redraw_random_entries",
    "revert_value_edit",
]


def apply_value_edit(
    tx: Transaction,
    model: nn.Module,
    edit: ValueEdit,
    optimizers: Sequence[Optimizer],
    initializer: Initializer,
    redo_record: ChangeRecord | None = None,
    origin_model: nn.Module | None = None,
) -> ChangeRecord:
    """Change the values. The optimizer state of replaced entries is reset to its start.

    Args:
        redo_record: what `revert_value_edit` returned, if the edit is redone: values and state.
        origin_model: the model that the origin of a copy belongs to; None: ``model`` itself.
    """
    owner, tensor = find_owner_and_tensor(model, edit.tensor)
    at = torch.tensor(edit.indices, device=tensor.device)
    record: ChangeRecord = {}
    with torch.no_grad():
        data = tensor.detach()
        rows = data.index_select(edit.dim, at)
        record["before"] = rows
        if redo_record is not None:
            new = _redone_rows(rows, edit, redo_record)
        elif edit.origin and edit.action == "fresh":
            new = find_owner_and_tensor(origin_model or model, edit.origin)[1].detach().to(data)
            new = new.index_select(edit.dim, at)
        else:
            new = _new_rows(owner, data, rows, edit, at, initializer)
        record["after"] = new
        if edit.action != "add" and isinstance(tensor, nn.Parameter):
            shape = tensor.shape

            def reset(key: str, old: Tensor, start: float | None) -> Tensor:
                if not _has_rows(key, old, shape, edit.dim):
                    return old
                indices = at.to(old.device)
                rows_before = old.index_select(edit.dim, indices)
                record[key] = rows_before
                value = new if start is None else torch.full_like(rows_before, start)
                if redo_record is not None:
                    value = redo_record.get(key, value)
                return old.clone().index_copy_(edit.dim, indices, value.to(old))

            optimizer_state.replace_state_tensors(tx, optimizers, tensor, reset)
        _replace_rows(tx, tensor, edit.dim, at, new)
        if edit.gain:
            record |= rescale_gain(tx, model, edit.gain, data, tensor.detach(), redo_record)
    return record


def revert_value_edit(
    tx: Transaction,
    model: nn.Module,
    edit: ValueEdit,
    optimizers: Sequence[Optimizer],
    record: ChangeRecord,
) -> ChangeRecord:
    """Undo a `ValueEdit`: restore replaced entries; sums keep what was trained since.

    Returns:
        The entries that the undo replaced, from which the edit is redone.
    """
    _, tensor = find_owner_and_tensor(model, edit.tensor)
    at = torch.tensor(edit.indices, device=tensor.device)
    redo_record: ChangeRecord = {}
    with torch.no_grad():
        data = tensor.detach()
        rows = record["before"].to(data)
        redo_record["after"] = data.index_select(edit.dim, at)
        if edit.action == "add":
            rows = subtract_change(data.index_select(edit.dim, at), rows, record["after"])
        elif isinstance(tensor, nn.Parameter):
            shape = tensor.shape

            def restored(key: str, state: Tensor, start: float | None) -> Tensor:
                if not _has_rows(key, state, shape, edit.dim):
                    return state
                indices = at.to(state.device)
                now = state.index_select(edit.dim, indices)
                redo_record[key] = now
                start = entry_ages.default_for_unrecorded_state(record, key, start)
                fallback = rows if start is None else torch.full_like(now, start)
                saved = record.get(key, fallback)
                return state.clone().index_copy_(edit.dim, indices, saved.to(state))

            optimizer_state.replace_state_tensors(tx, optimizers, tensor, restored)
        redo_record["before"] = rows
        _replace_rows(tx, tensor, edit.dim, at, rows)
        if edit.gain:
            redo_record |= rescale_gain(tx, model, edit.gain, data, tensor.detach(), record)
    return redo_record


def _has_rows(key: str, state: Tensor, shape: torch.Size, dim: int) -> bool:
    """Return whether the state ``key`` of a parameter has entries for the indices of ``dim``."""
    if entry_ages.is_entry_age_key(key):
        return state.shape[dim] == shape[dim]
    return state.shape == shape


def _redone_rows(rows: Tensor, edit: ValueEdit, redo_record: ChangeRecord) -> Tensor:
    """Return what the entries become again; sums keep what was trained since the undo."""
    if edit.action == "add":
        return subtract_change(rows, redo_record["after"], redo_record["before"])
    after: Tensor = redo_record["after"]
    return after.to(rows)


def redraw_random_entries(
    tx: Transaction,
    model: nn.Module,
    edit: TensorEdit | ValueEdit,
    initializer: Initializer,
) -> None:
    """Draw the random entries of an applied ``"fresh"`` edit again."""
    owner, tensor = find_owner_and_tensor(model, edit.tensor)
    at = torch.tensor(randomly_drawn_indices(edit), device=tensor.device)
    with torch.no_grad():
        name = edit.tensor.rpartition(".")[2]
        values = initializer.draw(owner, name, tensor.detach())
        before = tensor.detach()
        _replace_rows(tx, tensor, edit.dim, at, values.index_select(edit.dim, at))
        _adapt_gains(tx, model, edit, before, tensor.detach())


def _adapt_gains(
    tx: Transaction, model: nn.Module, edit: TensorEdit | ValueEdit, before: Tensor, after: Tensor
) -> None:
    """Adapt the gains of a weight norm when random entries of its direction were replaced."""
    if edit.gain:
        rescale_gain(tx, model, edit.gain, before, after)
    if isinstance(edit, TensorEdit) and edit.entry_gain:
        initialize_gain(tx, model, edit.entry_gain, after, edit.dim, edit.new)


def copy_random_entries_from_origins(
    tx: Transaction, model: nn.Module, plan: EditPlan, origin_model: nn.Module
) -> None:
    """Give the random entries of every copy the values that those of its origin have.

    ``origin_model`` is the model that the origins belong to.
    """
    edits: list[TensorEdit | ValueEdit] = [*plan.values, *plan.tensors]
    for edit in edits:
        if not edit.origin or not randomly_drawn_indices(edit):
            continue
        tensor = find_owner_and_tensor(model, edit.tensor)[1]
        origin = find_owner_and_tensor(origin_model, edit.origin)[1]
        with torch.no_grad():
            at = torch.tensor(randomly_drawn_indices(edit))
            rows = origin.detach().index_select(edit.dim, at.to(origin.device)).to(tensor)
            before = tensor.detach()
            _replace_rows(tx, tensor, edit.dim, at.to(tensor.device), rows)
            _adapt_gains(tx, model, edit, before, tensor.detach())


def randomly_drawn_indices(edit: TensorEdit | ValueEdit) -> list[int]:
    """Return the indices of the entries that an edit draws at random."""
    if isinstance(edit, TensorEdit):
        return edit.new if edit.fill == "fresh" else []
    return edit.indices if edit.action == "fresh" else []


def _replace_rows(tx: Transaction, tensor: Tensor, dim: int, at: Tensor, rows: Tensor) -> None:
    data = tensor.detach()
    changed = data.clone().index_copy_(dim, at, rows)
    replace_data(tx, tensor, in_memory_format_of(data, changed), tensor.grad)


def _new_rows(
    owner: nn.Module,
    data: Tensor,
    rows: Tensor,
    edit: ValueEdit,
    at: Tensor,
    initializer: Initializer,
) -> Tensor:
    if edit.action == "zero":
        return torch.zeros_like(rows)
    if edit.action == "start":
        return torch.full_like(rows, edit.tensor.rpartition(".")[2] in ONES_OF_NORM)
    if edit.action == "fresh":
        name = edit.tensor.rpartition(".")[2]
        return initializer.draw(owner, name, data).index_select(edit.dim, at)
    sources = data.index_select(edit.dim, torch.tensor(edit.sources, device=data.device))
    if edit.action == "add" and not edit.weights:
        return rows + sources
    shape = [1] * data.ndim
    shape[edit.dim] = -1
    weights = torch.tensor(edit.weights, dtype=torch.float64)
    if edit.action == "add":
        return rows + sources * weights.to(data).view(shape)
    weights = (weights / weights.sum()).to(data).view(shape)
    return (sources * weights).sum(edit.dim, keepdim=True).expand(rows.shape).contiguous()
