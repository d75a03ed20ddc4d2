"""Inserting and removing whole layers."""

from __future__ import annotations

import torch
from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.execution import layer_edits as layers
from revacnn_lightning.steering.planning.context import Context, conv_named, planner
from revacnn_lightning.steering.planning.plan import EditPlan, LayerEdit

__all__: list[str] = []


@planner(requests.InsertLayer)
def _insert(context: Context, request: requests.InsertLayer) -> EditPlan:
    host = conv_named(context.model, request.after)
    if not isinstance(host, (nn.Conv2d, nn.ConvTranspose2d)):
        raise EditRefusedError(
            f"{request.after} is no 2-D conv; a block can only follow one of these"
        )
    if request.after in context.channels.untraced and host.out_channels > 1:
        raise EditRefusedError(f"{request.after} was not run by any forward of the model")
    taken = {name for name, _ in host.named_children()}
    child = next(f"inserted{i}" for i in range(1, len(taken) + 2) if f"inserted{i}" not in taken)
    edit = LayerEdit("insert", request.after, request.kind, child, _width_behind(host))
    with torch.device("meta"):
        block = layers.BLOCKS[request.kind](edit.channels, edit.kernel)
    added = sum(p.numel() for p in block.parameters())
    before = sum(p.numel() for p in context.model.parameters())
    what = "a residual block" if request.kind == "residual" else "a Dirac conv"
    return EditPlan(
        request,
        f"Insert {what} after {request.after}",
        layers=[edit],
        parameters_before=before,
        parameters_after=before + added,
    )


def _width_behind(host: nn.Conv2d | nn.ConvTranspose2d) -> int:
    """Channels behind a conv and the blocks inserted there; a Dirac conv may have other widths."""
    width = host.out_channels
    for block in host.children():
        if isinstance(block, layers.DiracBlock) and isinstance(block.conv, nn.Conv2d):
            width = block.conv.out_channels
    return width


@planner(requests.RemoveLayer)
def _remove(context: Context, request: requests.RemoveLayer) -> EditPlan:
    try:
        module = context.model.get_submodule(request.layer)
    except AttributeError as error:
        raise EditRefusedError(f"there is no layer {request.layer!r} in this network") from error
    if module is context.model:
        raise EditRefusedError("the whole network cannot be removed")
    if isinstance(module, nn.Identity):
        raise EditRefusedError(f"{request.layer} does nothing already")
    kind = _stand_in(context, request.layer, module)
    places = layers.places_of(context.model, module, request.layer, context.optimizers)
    _check_lbfgs(context, module)
    before = sum(p.numel() for p in context.model.parameters())
    edit = LayerEdit("replace", request.layer, kind, places=places)  # type: ignore[arg-type]
    return EditPlan(
        request,
        f"Remove {request.layer}",
        layers=[edit],
        why="an identity takes its place"
        if kind == "identity"
        else "its input and output differ in shape: a 1x1 conv of the same stride takes its place",
        parameters_before=before,
        parameters_after=before - _lost(context.model, module) + _kept(module, kind),
        notes=["removing a layer changes the function of the network"],
    )


def _stand_in(context: Context, name: str, module: nn.Module) -> str:
    """What can take the place of a layer, by the shapes it was seen to read and write."""
    seen = context.channels.shapes.get(name)
    if not seen:
        raise EditRefusedError(f"{name} was not run by any forward of the model")
    if all(given is not None and given == made for given, made in seen):
        return "identity"
    if isinstance(module, nn.Conv2d):
        if type(module) is layers.CroppedConv2d or (
            module.kernel_size == (1, 1) and module.padding in ((0, 0), "valid", "same")
        ):
            raise EditRefusedError(
                f"{name} is a 1x1 conv that changes the shape: nothing simpler can do so"
            )
        if any(True for _ in module.children()):
            raise EditRefusedError(f"a block was inserted after {name}; remove that first")
        return "conv"
    given, made = sorted(seen, key=str)[0]
    if given is None or made is None:
        raise EditRefusedError(
            f"{name} does not read one tensor and write one; only such layers can go"
        )
    raise EditRefusedError(
        f"{name} turns shape {given} into {made}; only layers that keep the shape can go"
    )


def _lost(model: nn.Module, module: nn.Module) -> int:
    """Parameters that only the removed module has."""
    mine = {id(p): p.numel() for p in module.parameters()}
    inside = set(map(id, module.modules()))
    for other in model.modules():
        if id(other) not in inside:
            for parameter in other.parameters(recurse=False):
                mine.pop(id(parameter), None)
    return sum(mine.values())


def _kept(module: nn.Module, kind: str) -> int:
    if kind == "identity" or not isinstance(module, nn.Conv2d):
        return 0
    bias = module.out_channels if module.bias is not None else 0
    return module.out_channels * module.in_channels // module.groups + bias


def _check_lbfgs(context: Context, module: nn.Module) -> None:
    """LBFGS hangs its state on its first parameter, which therefore has to stay."""
    mine = {id(p) for p in module.parameters()}
    for optimizer in context.optimizers:
        if isinstance(optimizer, torch.optim.LBFGS) and id(optimizer._params[0]) in mine:
            raise EditRefusedError(
                "LBFGS keeps its state with the first layer, which cannot be removed"
            )
