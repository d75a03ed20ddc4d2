"""Integer attributes of modules that have to agree with the sizes of tensors."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.plan import AttributeEdit

__all__ = ["apply_attribute_edit", "revert_attribute_edit", "sync_sizes"]


def apply_attribute_edit(tx: Transaction, model: nn.Module, edit: AttributeEdit) -> None:
    """Set the attribute to its new value."""
    _set_entry(tx, model, edit, edit.new)


def revert_attribute_edit(tx: Transaction, model: nn.Module, edit: AttributeEdit) -> None:
    """Set the attribute to its old value."""
    _set_entry(tx, model, edit, edit.old)


def _set_entry(tx: Transaction, model: nn.Module, edit: AttributeEdit, number: int) -> None:
    module = model.get_submodule(edit.module)
    value: Any = number
    if edit.index >= 0:
        whole = getattr(module, edit.attribute)
        entries = list(whole)
        entries[edit.index] = number
        value = type(whole)(entries)
    _set_attribute(tx, module, edit.attribute, value)


def _set_attribute(tx: Transaction, module: nn.Module, name: str, value: Any) -> None:
    old = getattr(module, name)
    if old != value:
        setattr(module, name, value)
        tx.on_rollback(lambda: setattr(module, name, old))


def sync_sizes(tx: Transaction, module: nn.Module) -> None:
    """Set the size attributes of a ``torch.nn`` module from the shapes of its tensors.

    The attributes set here are those that `traced_int.SYNCED` excludes from tracing.
    """
    for name, value in _sizes(module).items():
        _set_attribute(tx, module, name, value)


def _sizes(module: nn.Module) -> dict[str, Any]:
    weight = getattr(module, "weight", None)
    if isinstance(module, _ConvNd):
        return _conv_sizes(module)
    if isinstance(module, nn.Linear):
        return {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}
    if isinstance(module, _NormBase):
        tensor = module.weight if module.weight is not None else module.running_mean
        return {} if tensor is None else {"num_features": tensor.shape[0]}
    if isinstance(module, nn.LayerNorm) and weight is not None:
        return {"normalized_shape": tuple(weight.shape)}
    if isinstance(module, nn.GroupNorm) and weight is not None:
        return {"num_channels": weight.shape[0]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": module.weight.numel()}
    if isinstance(module, nn.Embedding):
        return dict(zip(("num_embeddings", "embedding_dim"), module.weight.shape, strict=True))
    return {}


def _conv_sizes(conv: _ConvNd) -> dict[str, int]:
    weight = conv.weight
    if conv.transposed:
        return {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * conv.groups}
    if conv.groups > 1 and conv.groups == conv.in_channels:  # depthwise
        per_channel = conv.out_channels // conv.in_channels
        channels = weight.shape[0] // per_channel
        return {"out_channels": weight.shape[0], "in_channels": channels, "groups": channels}
    return {"out_channels": weight.shape[0], "in_channels": weight.shape[1] * conv.groups}
