"""An `EditPlan` done to parameters, buffers and module attributes, in place, and undone again.

Parameters keep their identity (``p.set_(new)`` under ``no_grad``), so optimizers, schedulers,
hooks and gradient accumulators that hold them need nothing. What an edit takes away is kept in a
*record*, a plain ``{key: tensor}`` per change, from which `revert` puts it back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import optimizer_state as states
from revacnn_lightning.steering.execution.tensor_resize import Resize, in_layout_of
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.plan import AttributeEdit, TensorEdit, ValueEdit

__all__ = [
    "Record",
    "change_values",
    "find",
    "redraw",
    "resize",
    "restore_values",
    "set_attribute",
    "set_size",
    "revert_resize",
]

Record = dict[str, Any]  # what one change took away: tensors, and numbers of optimizer state


def find(model: nn.Module, name: str) -> tuple[nn.Module, Tensor]:
    """The module that owns a parameter or buffer, and the tensor."""
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    tensor = getattr(owner, attribute)
    assert isinstance(tensor, Tensor)
    return owner, tensor


def replace(tx: Transaction, tensor: Tensor, new: Tensor, grad: Tensor | None) -> None:
    """Let ``tensor`` be ``new``, with that gradient, keeping the object."""
    old, old_grad = tensor.detach(), tensor.grad

    def put(value: Tensor, gradient: Tensor | None) -> None:
        with torch.no_grad():
            tensor.grad = None  # of the other shape, which torch would reject
            tensor.set_(value)  # type: ignore[call-overload]
            tensor.grad = gradient

    tx.on_rollback(lambda: put(old, old_grad))
    put(new, grad)


def set_attribute(tx: Transaction, module: nn.Module, name: str, value: Any) -> None:
    """Set a plain attribute of a module."""
    old = getattr(module, name)
    if old != value:
        setattr(module, name, value)
        tx.on_rollback(lambda: setattr(module, name, old))


# -------------------------------------------------------------------- resizing


def resize(
    tx: Transaction,
    model: nn.Module,
    edit: TensorEdit,
    optimizers: Sequence[Optimizer],
    generator: torch.Generator,
) -> Record:
    """Do one `TensorEdit` to a tensor, its gradient, its optimizer state and its module's sizes.

    Returns what is needed to undo it.
    """
    owner, tensor = find(model, edit.tensor)
    change = Resize(edit)
    record: Record = {}
    with torch.no_grad():
        new = _filled(owner, tensor, change, edit, generator)
        record["data"] = change.leaving(tensor.detach())
        if edit.fill == "share":
            record["before"], record["after"] = tensor.detach().clone(), change.back(new, 0.0)
        grad = None
        if tensor.grad is not None:
            record["grad"] = change.leaving(tensor.grad)
            grad = change.filled(tensor.grad, 0.0)
        if isinstance(tensor, nn.Parameter):
            shape = tensor.shape

            def edited(key: str, old: Tensor, start: float | None) -> Tensor:
                if not change.fits(old, shape):
                    return old
                record[key] = change.leaving(old)
                return change.filled(old, new if start is None else start)

            states.edit_state(tx, optimizers, tensor, edited)
        replace(tx, tensor, new, grad)
    sync_sizes(tx, owner)
    return record


def revert_resize(
    tx: Transaction,
    model: nn.Module,
    edit: TensorEdit,
    optimizers: Sequence[Optimizer],
    record: Record,
) -> None:
    """Undo one `TensorEdit`: what it removed comes back as it was, survivors stay as they are."""
    owner, tensor = find(model, edit.tensor)
    change = Resize(edit)
    with torch.no_grad():
        old = change.back(tensor.detach(), record["data"])
        if "before" in record:
            old = undo_delta(old, record["before"], record["after"])
        grad = None
        if tensor.grad is not None:
            grad = change.back(tensor.grad, record.get("grad", 0.0))
        if isinstance(tensor, nn.Parameter):
            shape = tensor.shape
            now = len(change.order)

            def reverted(key: str, state: Tensor, start: float | None) -> Tensor:
                if state.ndim != len(shape) or state.shape[change.dim] != now:
                    return state
                if any(a not in (b, 1) for a, b in zip(state.shape, shape, strict=True)):
                    return state
                return change.back(state, record.get(key, _left(change, old, start)))

            states.edit_state(tx, optimizers, tensor, reverted)
        replace(tx, tensor, old, grad)
    sync_sizes(tx, owner)


def _left(change: Resize, weight: Tensor, start: float | None) -> Tensor | float:
    """State of entries that come back to an optimizer which had none when they left."""
    return change.leaving(weight) if start is None else start


def undo_delta(now: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """``before`` where nothing was trained since ``after``, else with the training added."""
    before, after = before.to(now), after.to(now)
    return torch.where(now == after, before, now + (before - after))


def _filled(
    owner: nn.Module, tensor: Tensor, change: Resize, edit: TensorEdit, generator: torch.Generator
) -> Tensor:
    """The resized tensor with its new entries as the edit's ``fill`` says."""
    data = tensor.detach()
    if not edit.new or edit.fill == "copy":
        return change.take(data)
    if edit.fill == "zero":
        return change.filled(data, 0.0)
    if edit.fill == "one":
        return change.filled(data, 1.0)
    made = change.take(data)
    if edit.fill == "share":
        return made * change.shares(made)
    return change.filled(data, draw(owner, made, generator))


def redraw(tx: Transaction, model: nn.Module, edit: TensorEdit, generator: torch.Generator) -> None:
    """Draw the fresh entries of an edit that was done once more."""
    owner, tensor = find(model, edit.tensor)
    new = torch.tensor(edit.new, device=tensor.device)
    with torch.no_grad():
        drawn = draw(owner, tensor.detach(), generator)
        made = tensor.detach().clone()
        made.index_copy_(edit.dim, new, drawn.index_select(edit.dim, new))
        replace(tx, tensor, in_layout_of(tensor, made), tensor.grad)


def draw(owner: nn.Module, like: Tensor, generator: torch.Generator) -> Tensor:
    """A tensor of this shape as a fresh layer would have it.

    Convs and linear layers: uniform in ±1/sqrt(fan in), torch's default (He et al. 2015 with
    a = sqrt 5). A parameter of any other module: normal, with the spread of its present values.
    """
    if isinstance(owner, (_ConvNd, nn.Linear)):
        weight = like if like.ndim > 1 else getattr(owner, "weight", like)
        fan_in = nn.init._calculate_fan_in_and_fan_out(weight)[0] if weight.ndim > 1 else 1
        bound = 1 / math.sqrt(max(fan_in, 1))
        drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        drawn = (2 * drawn - 1) * bound
    else:
        spread = float(like.double().std()) if like.numel() > 1 else 1.0
        drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        drawn = drawn * (spread or 1.0)
    return drawn.to(like)


def sync_sizes(tx: Transaction, module: nn.Module) -> None:
    """Set a torch module's own integers from the shapes of its tensors."""
    sizes: dict[str, Any] = {}
    weight = getattr(module, "weight", None)
    if isinstance(module, _ConvNd):
        sizes = _conv_sizes(module)
    elif isinstance(module, nn.Linear):
        sizes = {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}
    elif isinstance(module, _NormBase):
        any_of = module.weight if module.weight is not None else module.running_mean
        if any_of is not None:
            sizes = {"num_features": any_of.shape[0]}
    elif isinstance(module, nn.LayerNorm) and weight is not None:
        sizes = {"normalized_shape": tuple(weight.shape)}
    elif isinstance(module, nn.GroupNorm) and weight is not None:
        sizes = {"num_channels": weight.shape[0]}
    elif isinstance(module, nn.PReLU):
        sizes = {"num_parameters": module.weight.numel()}
    elif isinstance(module, nn.Embedding):
        sizes = dict(zip(("num_embeddings", "embedding_dim"), module.weight.shape, strict=True))
    for name, value in sizes.items():
        set_attribute(tx, module, name, value)


def _conv_sizes(conv: _ConvNd) -> dict[str, int]:
    weight = conv.weight
    if conv.transposed:
        return {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * conv.groups}
    if conv.groups > 1 and conv.groups == conv.in_channels:  # depthwise
        per_channel = conv.out_channels // conv.in_channels
        channels = weight.shape[0] // per_channel
        return {"out_channels": weight.shape[0], "in_channels": channels, "groups": channels}
    return {"out_channels": weight.shape[0], "in_channels": weight.shape[1] * conv.groups}


def set_size(tx: Transaction, model: nn.Module, edit: AttributeEdit, undo: bool = False) -> None:
    """Do one `AttributeEdit`, or take it back."""
    module = model.get_submodule(edit.module)
    value: Any = edit.old if undo else edit.new
    if edit.index >= 0:
        whole = getattr(module, edit.attribute)
        entries = list(whole)
        entries[edit.index] = value
        value = type(whole)(entries)
    set_attribute(tx, module, edit.attribute, value)


# -------------------------------------------------------------------- values


def change_values(
    tx: Transaction,
    model: nn.Module,
    edit: ValueEdit,
    optimizers: Sequence[Optimizer],
    generator: torch.Generator,
) -> Record:
    """Do one `ValueEdit`. Entries that are replaced start anew in the optimizers as well."""
    owner, tensor = find(model, edit.tensor)
    at = torch.tensor(edit.indices, device=tensor.device)
    record: Record = {}
    with torch.no_grad():
        data = tensor.detach()
        rows = data.index_select(edit.dim, at)
        record["before"] = rows
        new = _new_rows(owner, data, rows, edit, at, generator)
        record["after"] = new
        made = data.clone().index_copy_(edit.dim, at, new)
        if edit.action != "add" and isinstance(tensor, nn.Parameter):
            shape = tensor.shape

            def restarted(key: str, old: Tensor, start: float | None) -> Tensor:
                if old.shape != shape:
                    return old
                record[key] = old.index_select(edit.dim, at)
                value = new if start is None else torch.full_like(new, start)
                return old.clone().index_copy_(edit.dim, at, value.to(old))

            states.edit_state(tx, optimizers, tensor, restarted)
        replace(tx, tensor, in_layout_of(data, made), tensor.grad)
    return record


def _new_rows(
    owner: nn.Module,
    data: Tensor,
    rows: Tensor,
    edit: ValueEdit,
    at: Tensor,
    generator: torch.Generator,
) -> Tensor:
    if edit.action == "fresh":
        return draw(owner, data, generator).index_select(edit.dim, at)
    others = data.index_select(edit.dim, torch.tensor(edit.sources, device=data.device))
    if edit.action == "add":
        return rows + others
    shape = [1] * data.ndim
    shape[edit.dim] = -1
    weights = torch.tensor(edit.weights, dtype=torch.float64)
    weights = (weights / weights.sum()).to(data).view(shape)
    return (others * weights).sum(edit.dim, keepdim=True).expand(rows.shape).contiguous()


def restore_values(
    tx: Transaction,
    model: nn.Module,
    edit: ValueEdit,
    optimizers: Sequence[Optimizer],
    record: Record,
) -> None:
    """Undo one `ValueEdit`: replaced entries come back as they were, sums keep their training."""
    _, tensor = find(model, edit.tensor)
    at = torch.tensor(edit.indices, device=tensor.device)
    with torch.no_grad():
        data = tensor.detach()
        rows = record["before"].to(data)
        if edit.action == "add":
            rows = undo_delta(data.index_select(edit.dim, at), rows, record["after"])
        made = data.clone().index_copy_(edit.dim, at, rows)
        if edit.action != "add" and isinstance(tensor, nn.Parameter):
            shape = tensor.shape

            def restored(key: str, now: Tensor, start: float | None) -> Tensor:
                if now.shape != shape:
                    return now
                fallback = rows if start is None else torch.full_like(rows, start)
                then = record.get(key, fallback)
                return now.clone().index_copy_(edit.dim, at, then.to(now))

            states.edit_state(tx, optimizers, tensor, restored)
        replace(tx, tensor, in_layout_of(data, made), tensor.grad)
