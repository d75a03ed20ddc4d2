"""Applies a `LayerEdit`, which inserts or removes a layer of a network in training, and reverts it.

An inserted block is a *child* of the conv it follows and is run by a forward hook of that conv:
the conv keeps its class, its attributes and its names in the state dict. A removed layer is
replaced in its parent by an identity, or by a strided 1x1 conv with the same output shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.blocks import (
    RunChildOnOutput,
    make_block,
    make_removed_layer_replacement,
)
from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.layer_parameters import (
    add_to_group_of,
    reinsert_into_param_groups,
    remove_parameters,
    save_layer_before_removal,
)
from revacnn_lightning.steering.execution.replacement import ChangeRecord
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.undone_layers import (
    load_redone_layer,
    save_undone_layer,
)
from revacnn_lightning.steering.planning.plan import LayerEdit

__all__ = ["apply_layer_edit", "revert_layer_edit"]


def apply_layer_edit(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    initializer: Initializer,
    redo_record: ChangeRecord | None = None,
) -> tuple[ChangeRecord, nn.Module | None]:
    """Insert or remove the layer. Returns what reverting needs, the removed module included.

    Args:
        redo_record: what `revert_layer_edit` returned, if the edit is redone: the layer that it
            took away, which comes back.
    """
    record: ChangeRecord = {}
    removed = None
    if edit.action == "insert":
        new = _insert(tx, model, edit, optimizers, initializer)
    else:
        new, record, removed = _replace(tx, model, edit, optimizers, initializer)
    if redo_record is not None:
        load_redone_layer(tx, new, optimizers, redo_record)
    return record, removed


def revert_layer_edit(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    record: ChangeRecord,
    removed: nn.Module | None,
) -> ChangeRecord:
    """Undo a `LayerEdit`; a removed layer returns with the values it had.

    Returns:
        The layer that the edit had put in, from which it is redone.
    """
    if edit.action == "insert":
        host = model.get_submodule(edit.host)
        block = host.get_submodule(edit.child)
        redo_record = save_undone_layer(block, optimizers)
        remove_parameters(tx, block, optimizers)
        _detach(tx, host, edit.child)
        return redo_record
    if removed is None:
        raise EditFailedError(f"the removed layer {edit.host} is no longer available")
    replacement = model.get_submodule(edit.host)
    redo_record = save_undone_layer(replacement, optimizers)
    remove_parameters(tx, replacement, optimizers)
    _swap(tx, model, replacement, removed)
    _load(tx, removed, record)
    reinsert_into_param_groups(tx, model, edit, optimizers, record)
    return redo_record


# -------------------------------------------------------------------- inserting


def _insert(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    initializer: Initializer,
) -> nn.Module:
    """Insert a block and return it."""
    host = model.get_submodule(edit.host)
    block = _seeded(
        initializer, lambda: make_block(edit.kind, edit.channels, edit.kernel, edit.dims)
    )
    _match_norms(block, model)
    _match_placement(block, host)
    hook = host.register_forward_hook(RunChildOnOutput(edit.child))
    host.add_module(edit.child, block)

    def remove() -> None:
        hook.remove()
        del host._modules[edit.child]

    tx.on_rollback(remove)
    if edit.origin:  # a copy: it learns only if its host does
        block.requires_grad_(any(p.requires_grad for p in host.parameters(recurse=False)))
    add_to_group_of(tx, host, block, optimizers, is_copy=bool(edit.origin))
    return block


def _seeded(initializer: Initializer, make: Callable[[], nn.Module]) -> nn.Module:
    """Build a module with the seed of ``initializer``; torch's random states stay as they are.

    ``torch.manual_seed`` would also seed the GPUs, from whose random state the training goes on.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(initializer.generator.initial_seed())
        return make()


def _match_norms(block: nn.Module, model: nn.Module) -> None:
    """Synchronize the norms of ``block`` over the ranks of the training, if those of a model are.

    A Trainer that resumes the run synchronizes all norms, those of inserted blocks included.
    """
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            nn.SyncBatchNorm.convert_sync_batchnorm(block, module.process_group)
            return


def _match_placement(block: nn.Module, host: nn.Module) -> None:
    """Move ``block`` to the device, type, memory format and mode of ``host``."""
    weight = next(host.parameters())
    block.to(device=weight.device, dtype=weight.dtype).train(host.training)
    channels_last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    if channels_last and not weight.is_contiguous():
        block.to(memory_format=torch.channels_last)


def _detach(tx: Transaction, host: nn.Module, child: str) -> None:
    """Remove an inserted child and its hook from the host."""
    block = host._modules.pop(child)
    keys = [k for k, h in host._forward_hooks.items() if getattr(h, "child", None) == child]
    hooks = [(key, host._forward_hooks.pop(key)) for key in keys]

    def restore() -> None:
        host._modules[child] = block
        host._forward_hooks.update(hooks)

    tx.on_rollback(restore)


# -------------------------------------------------------------------- replacing


def _replace(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    initializer: Initializer,
) -> tuple[nn.Module, ChangeRecord, nn.Module]:
    """Replace a layer; return the new one, what restores the old one, and the old one."""
    old = model.get_submodule(edit.host)
    new = _seeded(initializer, lambda: make_removed_layer_replacement(old, edit.kind))
    new.train(old.training)
    if edit.kind == "conv":
        _match_placement(new, old)
    if edit.origin:
        new.requires_grad_(any(p.requires_grad for p in old.parameters()))
    record = save_layer_before_removal(model, edit, old, optimizers)
    add_to_group_of(tx, old, new, optimizers, is_copy=bool(edit.origin))
    _swap(tx, model, old, new)
    record |= remove_parameters(tx, old, optimizers, edit.host, still_used_by=model)
    return new, record, old


def _swap(tx: Transaction, model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace ``old`` by ``new`` wherever it is registered in the model."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = new

                def restore(parent: nn.Module = parent, name: str = name) -> None:
                    parent._modules[name] = old

                tx.on_rollback(restore)


def _load(tx: Transaction, module: nn.Module, record: ChangeRecord) -> None:
    """Give a restored module the values it had when it was removed."""
    present = module.state_dict()
    with torch.no_grad():
        for key, value in record.items():
            kind, _, name = key.partition(" ")
            if kind != "data" or name not in present:
                continue
            tensor = present[name]
            if not torch.equal(tensor, value.to(tensor)):
                old = tensor.clone()
                tensor.copy_(value)
                tx.on_rollback(lambda tensor=tensor, old=old: tensor.copy_(old))  # type: ignore[misc]
