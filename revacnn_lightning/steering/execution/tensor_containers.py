"""Keeps dicts and lists of tensor copies complete when layers come and go.

Code that updates an average loops over the parameters of now: it needs an entry for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.steering.execution.tensor_edits import replace_data
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.holders.tensor_copies import TensorCopy
from revacnn_lightning.steering.planning.lookup import find_tensor

__all__ = ["update_container"]


def update_container(
    tx: Transaction, model: nn.Module, copy: TensorCopy, restored: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give a container the tensors that the model has now; return those it loses, by name.

    A new entry is that of ``restored``, else a copy of the model's tensor, or zero if the entries
    are no values of the tensors.
    """
    _share_memory_again(tx, model, copy)
    before = copy.view.full_names
    view = copy.view if copy.view.kind == "chosen" else copy.view.now(model)
    existing = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    after = [name for name in view.full_names if name in existing]
    if after == before or copy.container is None:
        return {}
    entries = {name: _entry(model, copy, name, restored) for name in after}
    keys = [copy.key_of(name, find_tensor(model, name)[1]) for name in after if copy.keys]
    _replace_entries(tx, copy.container, keys, list(entries.values()))
    removed = {name: copy.tensor(name) for name in before if name not in after}
    copy.update(after, list(entries.values()), keys)
    return removed


def _share_memory_again(tx: Transaction, model: nn.Module, copy: TensorCopy) -> None:
    for name in copy.aliases:
        try:
            tensor = find_tensor(model, name)[1]
        except AttributeError:  # of a removed layer
            continue
        replace_data(tx, copy.tensor(name), tensor.detach(), None)


def _entry(model: nn.Module, copy: TensorCopy, name: str, restored: Mapping[str, Tensor]) -> Tensor:
    if name in copy.view.full_names:
        return copy.tensor(name)
    tensor = find_tensor(model, name)[1]
    if copy.view.full_names and copy.foreign.issuperset(copy.view.full_names):
        return tensor
    saved = restored.get(name)
    if saved is not None:
        return saved
    like = copy.tensor(copy.view.full_names[0])
    value = tensor.detach().clone() if copy.has_values else torch.zeros_like(tensor.detach())
    return value.to(like.device)


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
