"""Plans inserting and removing whole layers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.protocol.messages import OUTPUT_UNCHANGED
from revacnn_lightning.steering.blocks import (
    DiracBlock,
    IdentityLinear,
    InputCropOrPadConv2d,
    make_block,
)
from revacnn_lightning.steering.computed_tensors import has_tensor
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.lookup import find_layer, find_module
from revacnn_lightning.steering.planning.optimizer_support import parameter_positions
from revacnn_lightning.steering.planning.plan import EditPlan, LayerEdit
from revacnn_lightning.telemetry.unit_layers import UnitLayer, filter_count, kernel_size

__all__ = ["plan_layer_insertion", "plan_layer_removal"]

NOT_CALLED = (
    "{layer} was not called as a module by any forward of the model; it can be edited when a "
    "training step calls it"
)
REPLACEMENTS = {
    "identity": "an identity takes its place",
    "conv": "its input and output differ in shape: a 1x1 conv with the same stride takes its place",
}


def plan_layer_insertion(context: PlanningContext, request: requests.InsertLayer) -> EditPlan:
    """Plan inserting a block after a layer without changing the network's function."""
    host = find_layer(context.model, request.after)
    if request.after not in context.groups.shapes:  # a hook of the layer runs the block
        raise EditRefusedError(NOT_CALLED.format(layer=request.after))
    children = {name for name, _ in host.named_children()}
    child = next(
        f"inserted{i}" for i in range(1, len(children) + 2) if f"inserted{i}" not in children
    )
    width, dims = _output_width(host), len(kernel_size(host))
    edit = LayerEdit("insert", request.after, request.kind, child, width, dims=dims)
    with torch.device("meta"):
        block = make_block(edit.kind, edit.channels, edit.kernel, edit.dims)
    before = context.count_parameters()
    what = "a residual block" if request.kind == "residual" else _identity_name(host)
    return EditPlan(
        request,
        f"Insert {what} after {request.after}",
        layers=[edit],
        parameters_before=before,
        parameters_after=before + sum(p.numel() for p in block.parameters()),
        output_effect=OUTPUT_UNCHANGED,
    )


def _identity_name(host: UnitLayer) -> str:
    return "an identity linear layer" if isinstance(host, nn.Linear) else "a Dirac conv"


def _output_width(host: UnitLayer) -> int:
    """Return the channels after a layer and its inserted blocks; an identity may change them."""
    width = filter_count(host)
    for block in host.children():
        if isinstance(block, DiracBlock) and isinstance(block.conv, UnitLayer):
            width = filter_count(block.conv)
        if isinstance(block, IdentityLinear) and isinstance(block.linear, UnitLayer):
            width = filter_count(block.linear)
    return width


def plan_layer_removal(context: PlanningContext, request: requests.RemoveLayer) -> EditPlan:
    """Plan replacing a layer by an identity or by a strided 1x1 conv."""
    layer = request.layer
    module = find_module(context.model, layer)
    if module is context.model:
        raise EditRefusedError("the whole network cannot be removed; name one of its layers")
    if isinstance(module, nn.Identity):
        raise EditRefusedError(f"{layer} is an identity and does nothing already")
    kind = _replacement_kind(context, layer, module)
    positions = parameter_positions(module, layer, context.optimizers)
    _check_lbfgs(context, module)
    before = context.count_parameters()
    return EditPlan(
        request,
        f"Remove {layer}",
        layers=[LayerEdit("replace", layer, kind, positions=positions)],
        coupling=REPLACEMENTS[kind],
        parameters_before=before,
        parameters_after=before
        - _parameters_of(context.model, module)
        + _replacement_parameters(module, kind),
        output_effect="output may change",
    )


def _replacement_kind(
    context: PlanningContext, name: str, module: nn.Module
) -> Literal["identity", "conv"]:
    """Return what can replace a layer, from the shapes of its traced inputs and outputs."""
    shapes = context.groups.shapes.get(name)
    if not shapes:
        raise EditRefusedError(NOT_CALLED.format(layer=name))
    if all(given is not None and given == returned for given, returned in shapes):
        return "identity"
    if isinstance(module, nn.Conv2d):
        if type(module) is InputCropOrPadConv2d or (
            module.kernel_size == (1, 1) and module.padding in ((0, 0), "valid", "same")
        ):
            raise EditRefusedError(
                f"{name} is a 1x1 conv that changes the shape; no simpler layer can replace it"
            )
        if any(child != "parametrizations" for child, _ in module.named_children()):
            raise EditRefusedError(f"a block was inserted after {name}; remove the block first")
        if not has_tensor(module, "weight"):
            raise EditRefusedError(
                f"{name} has no weight of its own, from which a 1x1 conv in its place could start"
            )
        return "conv"
    given, returned = sorted(shapes, key=str)[0]
    if given is None or returned is None:
        raise EditRefusedError(
            f"{name} is not called with one tensor alone, or does not return one; only layers that "
            "map one tensor to one tensor can be removed"
        )
    raise EditRefusedError(
        f"{name} maps shape {given} to {returned}; only convs and layers that keep the shape can "
        "be removed"
    )


def _parameters_of(model: nn.Module, module: nn.Module) -> int:
    """Return the number of parameter values that only the removed module has."""
    own = {id(p): p.numel() for p in module.parameters()}
    inside = set(map(id, module.modules()))
    for other in model.modules():
        if id(other) not in inside:
            for parameter in other.parameters(recurse=False):
                own.pop(id(parameter), None)
    return sum(own.values())


def _replacement_parameters(module: nn.Module, kind: str) -> int:
    if kind == "identity" or not isinstance(module, nn.Conv2d):
        return 0
    bias = module.out_channels if has_tensor(module, "bias") else 0
    return module.out_channels * module.in_channels // module.groups + bias


def _check_lbfgs(context: PlanningContext, module: nn.Module) -> None:
    """Check that the module does not own the first parameter of LBFGS, which holds its state."""
    own = {id(p) for p in module.parameters()}
    for optimizer in context.optimizers:
        if isinstance(optimizer, torch.optim.LBFGS) and id(optimizer._params[0]) in own:
            raise EditRefusedError(
                "LBFGS keeps its state with its first parameter, so the layer of that parameter "
                "cannot be removed"
            )
