"""Keeps dicts and lists of tensor copies complete when layers come and go.

Code that updates an average loops over the present parameters: it needs an entry for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.steering.execution.replacement import replace_data
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.holders.module_matching import is_inside_module
from revacnn_lightning.steering.holders.tensor_copy import TensorCopy
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import EditPlan

__all__ = ["add_and_remove_copied_tensors"]


def add_and_remove_copied_tensors(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    copy: TensorCopy,
    restored: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Add and remove entries of a container after a plan inserted or removed layers of the model.

    A new entry is that of ``restored`` if there is one. Otherwise it is a copy of the model's
    tensor, or zero if the container holds something else than values, such as importances.

    Returns:
        The tensors that were removed from the container, by name.
    """
    _share_memory_again(tx, model, copy)
    if copy.container is None or not plan.layers:
        return {}
    hosts = [layer.host for layer in plan.layers if layer.action == "replace"]
    replaced = {
        n for n in copy.listing.full_names if any(is_inside_module(n, host) for host in hosts)
    }
    listing = copy.listing if copy.listing.kind == "chosen" else copy.listing.now(model)
    existing = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    after = [name for name in listing.full_names if name in existing]
    kept = set(copy.listing.full_names) - replaced
    entries = {
        name: copy.tensor(name) if name in kept else _new_entry(model, copy, name, restored)
        for name in after
    }
    keys = [copy.key_of(name, find_owner_and_tensor(model, name)[1]) for name in after if copy.keys]
    _replace_entries(tx, copy.container, keys, list(entries.values()))
    lost = [name for name in copy.listing.full_names if name in replaced or name not in after]
    removed = {name: copy.tensor(name) for name in lost}
    copy.update(after, list(entries.values()), keys)
    return removed


def _share_memory_again(tx: Transaction, model: nn.Module, copy: TensorCopy) -> None:
    for name in copy.aliases:
        try:
            tensor = find_owner_and_tensor(model, name)[1]
        except AttributeError:  # of a removed layer
            continue
        if name in copy.listing.full_names:
            replace_data(tx, copy.tensor(name), tensor.detach(), None)


def _new_entry(
    model: nn.Module, copy: TensorCopy, name: str, restored: Mapping[str, Tensor]
) -> Tensor:
    if name in restored:
        return restored[name]
    tensor = find_owner_and_tensor(model, name)[1].detach()
    value = tensor.clone() if copy.has_values else torch.zeros_like(tensor)
    return value.to(copy.tensor(copy.listing.full_names[0]).device)


def _replace_entries(tx: Transaction, container: Any, keys: list[Any], new: list[Tensor]) -> None:
    if isinstance(container, list):
        old = list(container)
        container[:] = new
        tx.on_rollback(lambda: container.__setitem__(slice(None), old))
        return
    saved = dict(container)
    container.clear()
    container.update(zip(keys, new, strict=True))

    def restore() -> None:
        container.clear()
        container.update(saved)

    tx.on_rollback(restore)
