"""Integer attributes of modules that have to agree with the sizes of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList

from revacnn_lightning.steering.computed_tensors import (
    hook_attribute_values,
    tensor_or_original,
)
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import AttributeEdit, EditPlan
from revacnn_lightning.telemetry.module_tree import list_named_modules
from revacnn_lightning.telemetry.unit_layers import UnitLayer

RECURRENT = (nn.RNNBase, nn.RNNCellBase)
LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm) if hasattr(nn, "RMSNorm") else (nn.LayerNorm,)

__all__ = ["apply_attribute_edit", "revert_attribute_edit", "update_size_attributes"]


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


def update_size_attributes(tx: Transaction, model: nn.Module, plan: EditPlan) -> None:
    """Make the attributes of all modules agree with the tensors that a plan has changed.

    A tensor may belong to several modules, which share it.
    """
    names = {edit.tensor for edit in plan.tensors} | {edit.tensor for edit in plan.values}
    changed = {id(find_owner_and_tensor(model, name)[1]) for name in names}
    if not changed:
        return
    for _, module in list_named_modules(model):
        if any(id(tensor) in changed for tensor in _own_tensors(module)):
            _sync_sizes(tx, module)
            for name, value in hook_attribute_values(module).items():
                old = vars(module)[name]
                setattr(module, name, value)
                tx.on_rollback(lambda m=module, n=name, o=old: setattr(m, n, o))  # type: ignore[misc]


def _own_tensors(module: nn.Module) -> Iterator[Any]:
    """Yield the parameters and buffers of a module and of its parametrizations."""
    yield from (*module._parameters.values(), *module._buffers.values())
    table = getattr(module, "parametrizations", None)
    for steps in table.children() if isinstance(table, nn.ModuleDict) else ():
        if isinstance(steps, ParametrizationList):
            yield from (*steps._parameters.values(), *steps._buffers.values())


def _sync_sizes(tx: Transaction, module: nn.Module) -> None:
    """Set the size attributes of a ``torch.nn`` module from the shapes of its tensors.

    The attributes set here are those that `traced_int.SYNCED` excludes from tracing.
    """
    for name, value in _sizes(module).items():
        _set_attribute(tx, module, name, value)


def _sizes(module: nn.Module) -> dict[str, Any]:
    weight = tensor_or_original(module, "weight")
    if isinstance(module, RECURRENT):
        return _recurrent_sizes(module)
    if isinstance(module, _NormBase):
        tensor = module._buffers.get("running_mean") if weight is None else weight
        return {} if tensor is None else {"num_features": tensor.shape[0]}
    if isinstance(module, nn.MultiheadAttention):
        return _attention_sizes(module)
    if weight is None:
        return {}
    if isinstance(module, nn.Linear):
        return {"out_features": weight.shape[0], "in_features": weight.shape[1]}
    if isinstance(module, UnitLayer):
        return _conv_sizes(module, weight.shape)
    if _is_deformable(module):
        groups: Any = module.groups
        return {"out_channels": weight.shape[0], "in_channels": weight.shape[1] * groups}
    if isinstance(module, LAYER_NORMS):
        return {"normalized_shape": tuple(weight.shape)}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": weight.shape[0]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": weight.numel()}
    if isinstance(module, nn.Embedding):
        return dict(zip(("num_embeddings", "embedding_dim"), weight.shape, strict=True))
    return {}


def _is_deformable(module: nn.Module) -> bool:
    """Return whether a module is torchvision's deformable conv, without importing torchvision."""
    return type(module).__module__ == "torchvision.ops.deform_conv"


def _attention_sizes(module: nn.MultiheadAttention) -> dict[str, int]:
    projections = [module.in_proj_weight] * 3
    if module.in_proj_weight is None:
        projections = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    if any(each is None for each in projections):
        return {}
    width, key_width, value_width = (each.shape[1] for each in projections)
    return {"embed_dim": width, "kdim": key_width, "vdim": value_width,
            "head_dim": module.out_proj.weight.shape[1] // module.num_heads}  # fmt: skip


def _recurrent_sizes(module: Any) -> dict[str, int]:
    name = "weight_ih" if isinstance(module, nn.RNNCellBase) else "weight_ih_l0"
    weight = tensor_or_original(module, name)
    return {} if weight is None else {"input_size": weight.shape[1]}


def _conv_sizes(conv: Any, shape: torch.Size) -> dict[str, int]:
    if conv.transposed:
        return {"in_channels": shape[0], "out_channels": shape[1] * conv.groups}
    if conv.groups > 1 and conv.groups == conv.in_channels:  # depthwise
        per_channel = conv.out_channels // conv.in_channels
        channels = shape[0] // per_channel
        return {"out_channels": shape[0], "in_channels": channels, "groups": channels}
    return {"out_channels": shape[0], "in_channels": shape[1] * conv.groups}
