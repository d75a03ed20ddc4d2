"""Whole layers put into a network that trains, and taken out of it.

An inserted block is a *child* of the conv it follows, run by a forward hook on that conv: the
conv keeps its class, its attributes and its names in the state dict. A removed layer is replaced
in its parent by an identity, or by a strided 1x1 conv with the same output shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.execution import optimizer_state as states
from revacnn_lightning.steering.execution.tensor_edits import Record, find
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.plan import LayerEdit

__all__ = ["CroppedConv2d", "DiracBlock", "ResidualBlock", "change_layer", "revert_layer_change"]


class ResidualBlock(nn.Module):
    """``x + bn(conv(relu(x)))`` with a batch-norm gain of zero: the identity, bit for bit.

    Goyal et al. 2017 start residual branches this way. The gain learns from the first step on,
    the conv from the second.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.conv(F.relu(x)))  # (B, C, H, W)


class DiracBlock(nn.Module):
    """A conv that begins as the identity (Zagoruyko & Komodakis 2017)."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        nn.init.dirac_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # (B, C, H, W)


class CroppedConv2d(nn.Conv2d):
    """A conv of an input that is first cropped (or padded, where positive) on its four sides."""

    crop: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, right, top, bottom, as in F.pad

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.crop))


class OutputHook:
    """Forward hook that runs a child of the module on its output. Can be pickled and copied."""

    def __init__(self, child: str) -> None:
        self.child = child

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return getattr(module, self.child)(output)


BLOCKS = {"residual": ResidualBlock, "dirac": DiracBlock}


def change_layer(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    generator: torch.Generator,
) -> tuple[Record, nn.Module | None]:
    """Do one `LayerEdit`. Returns what undoing it needs: a record, and the removed module."""
    if edit.action == "insert":
        _insert(tx, model, edit, optimizers, generator)
        return {}, None
    return _replace(tx, model, edit, optimizers, generator)


def revert_layer_change(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    record: Record,
    removed: nn.Module | None,
) -> None:
    """Undo one `LayerEdit`; what it removed comes back as it was then."""
    if edit.action == "insert":
        host = model.get_submodule(edit.host)
        _drop_parameters(tx, host.get_submodule(edit.child), optimizers)
        _detach(tx, host, edit.child)
        return
    if removed is None:
        raise EditFailedError(f"the layer {edit.host} that was removed is not at hand any more")
    present = model.get_submodule(edit.host)
    _drop_parameters(tx, present, optimizers)
    _swap(tx, model, present, removed)
    _load(tx, removed, record)
    _put_back(tx, model, edit, optimizers, record)


# -------------------------------------------------------------------- inserting


def _insert(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    generator: torch.Generator,
) -> None:
    host = model.get_submodule(edit.host)
    block = like(host, _seeded(generator, lambda: BLOCKS[edit.kind](edit.channels, edit.kernel)))
    hook = host.register_forward_hook(OutputHook(edit.child))
    host.add_module(edit.child, block)

    def remove() -> None:
        hook.remove()
        del host._modules[edit.child]

    tx.on_rollback(remove)
    _adopt(tx, block, host, optimizers)


def _seeded(generator: torch.Generator, make: Any) -> Any:
    """Build a module with randomness of its own, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        return make()


def like(host: nn.Module, block: nn.Module) -> nn.Module:
    """The block with the host's device, type, memory format and mode."""
    weight = next(host.parameters())
    block.to(device=weight.device, dtype=weight.dtype).train(host.training)
    last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    if last and not weight.is_contiguous():
        block.to(memory_format=torch.channels_last)
    return block


def _detach(tx: Transaction, host: nn.Module, child: str) -> None:
    """Take an inserted child and its hook off the host."""
    block = host._modules.pop(child)
    keys = [k for k, h in host._forward_hooks.items() if getattr(h, "child", None) == child]
    hooks = [(key, host._forward_hooks.pop(key)) for key in keys]

    def put_back() -> None:
        host._modules[child] = block
        host._forward_hooks.update(hooks)

    tx.on_rollback(put_back)


# -------------------------------------------------------------------- replacing


def replacement(module: nn.Module, kind: str) -> nn.Module:
    """What stands in for a removed layer.

    A conv's stand-in reads the same pixels its kernel's centre read (so the output has the same
    size for every input size) and has, per channel pair, the sum of the kernel's coefficients.
    """
    if kind == "identity":
        return nn.Identity()
    assert isinstance(module, nn.Conv2d)
    crop = crop_of(module)
    conv = CroppedConv2d(
        module.in_channels, module.out_channels, 1, stride=module.stride,  # type: ignore[arg-type]
        groups=module.groups, bias=module.bias is not None,
    )  # fmt: skip
    conv.crop = crop
    with torch.no_grad():
        conv.weight.copy_(module.weight.detach().sum((2, 3), keepdim=True))
        if conv.bias is not None and module.bias is not None:
            conv.bias.copy_(module.bias)
    return conv


def crop_of(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """How to pad (negative: crop) the input of a 1x1 conv so that its output has the same size.

    A conv gives floor((H + p - d (k - 1) - 1) / s) + 1 rows, p being the padding of both sides.
    """
    sides: list[int] = []
    for axis in (1, 0):  # F.pad lists the last dimension first
        extent = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
        padding = extent if conv.padding == "same" else 0
        if not isinstance(conv.padding, str):
            padding = 2 * conv.padding[axis]
        total = padding - extent
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]


def _replace(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    generator: torch.Generator,
) -> tuple[Record, nn.Module]:
    old = model.get_submodule(edit.host)
    new = _seeded(generator, lambda: replacement(old, edit.kind))
    new.train(old.training)
    if edit.kind == "conv":
        like(old, new)
    record = _taken(model, edit, old, optimizers)
    _adopt(tx, new, old, optimizers)
    _swap(tx, model, old, new)
    record |= _drop_parameters(tx, old, optimizers, edit.host, keep=model)
    return record, old


def _taken(
    model: nn.Module, edit: LayerEdit, module: nn.Module, optimizers: Sequence[Optimizer]
) -> Record:
    """The removed layer's tensors and their optimizer state."""
    record: Record = {f"data {n}": t.detach() for n, t in module.state_dict().items()}
    for name, optimizer, _, _ in edit.places:
        if optimizer < len(optimizers):
            parameter = find(model, name)[1]
            for key, value in optimizers[optimizer].state.get(parameter, {}).items():
                if isinstance(value, (Tensor, float, int)):
                    record[f"state {optimizer} {name} {key}"] = value
    return record


def _swap(tx: Transaction, model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Let ``new`` stand wherever ``old`` is registered in the model."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = new

                def put_back(parent: nn.Module = parent, name: str = name) -> None:
                    parent._modules[name] = old

                tx.on_rollback(put_back)


def _load(tx: Transaction, module: nn.Module, record: Record) -> None:
    """Give a module that comes back the values it had when it was removed."""
    now = module.state_dict()
    with torch.no_grad():
        for key, value in record.items():
            kind, _, name = key.partition(" ")
            if kind == "data" and name in now and not torch.equal(now[name], value.to(now[name])):
                tensor, old = now[name], now[name].clone()
                tensor.copy_(value)
                tx.on_rollback(lambda tensor=tensor, old=old: tensor.copy_(old))  # type: ignore[misc]


# -------------------------------------------------------------------- parameters and groups


def places_of(
    model: nn.Module, module: nn.Module, prefix: str, optimizers: Sequence[Optimizer]
) -> list[tuple[str, int, int, int]]:
    """(parameter, optimizer, group, position) of each of a module's parameters."""
    places = []
    for name, parameter in module.named_parameters(prefix):
        for i, optimizer in enumerate(optimizers):
            for j, group in enumerate(optimizer.param_groups):
                for k, each in enumerate(group["params"]):
                    if each is parameter:
                        places.append((name, i, j, k))
    return sorted(places, key=lambda place: place[1:])


def _adopt(
    tx: Transaction, block: nn.Module, near: nn.Module, optimizers: Sequence[Optimizer]
) -> None:
    """Put a new block's parameters into the group that trains the layer it belongs to.

    A group of its own would break schedulers, which count groups (LambdaLR) when they are made.
    """
    added = list(block.parameters())
    if not added or not optimizers:
        return
    groups = [found for p in near.parameters() for found in states.groups_of(optimizers, p)]
    _, optimizer, group = groups[0] if groups else (0, optimizers[0], optimizers[0].param_groups[0])
    for parameter in added:
        states.add_parameter(tx, optimizer, group, parameter, len(group["params"]))


def _drop_parameters(
    tx: Transaction,
    module: nn.Module,
    optimizers: Sequence[Optimizer],
    prefix: str = "",
    keep: nn.Module | None = None,
) -> Record:
    """Take a module's parameters out of their groups, but those that ``keep`` still uses.

    Returns the parts of flat optimizer state that went with them.
    """
    still = {id(p) for p in keep.parameters()} if keep is not None else set()
    record: Record = {}
    for name, parameter in module.named_parameters(prefix):
        if id(parameter) not in still:
            for i, optimizer, group in list(states.groups_of(optimizers, parameter)):
                cut = states.drop_parameter(tx, optimizer, group, parameter)
                record |= {f"flat {i} {name} {key}": part for key, part in cut.items()}
    return record


def _put_back(
    tx: Transaction,
    model: nn.Module,
    edit: LayerEdit,
    optimizers: Sequence[Optimizer],
    record: Record,
) -> None:
    for name, i, j, position in edit.places:
        if i >= len(optimizers) or j >= len(optimizers[i].param_groups):
            continue
        parameter = find(model, name)[1]
        optimizer, group = optimizers[i], optimizers[i].param_groups[j]
        if any(each is parameter for each in group["params"]):
            continue  # it is shared with a layer that stayed
        flat = _under(record, f"flat {i} {name} ")
        states.add_parameter(tx, optimizer, group, parameter, position, flat)
        kept = _under(record, f"state {i} {name} ")
        if kept:
            optimizer.state[parameter] = kept  # rolled back with the parameter itself


def _under(record: Record, start: str) -> Record:
    return {key[len(start) :]: v for key, v in record.items() if key.startswith(start)}
