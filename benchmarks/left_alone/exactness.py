"""What an edit must keep: the tensors that survive, the output, the optimizers' parameters."""

from __future__ import annotations

import copy
import itertools
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = [
    "Cuts",
    "ModuleSnapshot",
    "eval_outputs",
    "group_faults",
    "is_initialized",
    "masked_outputs",
    "names_part_of_training",
    "output_fault",
    "removed_entries",
    "snapshot_module",
    "state_faults",
]

TOLERANCE = 300  # rounding units, relative to the largest output

Cuts = list[tuple[int, list[int]]]  # (dim, removed indices)
Output = Callable[[Any, Any], Any]


@dataclass
class ModuleSnapshot:
    """A module at one moment.

    Attributes:
        parameters: Copies of all parameters.
        state: Copies of all buffers and of the optimizers' state.
        outputs: Outputs in evaluation mode; None if it cannot be run.
        groups: Per trainable parameter, the number of parameter groups that hold it.
        foreign: The number of parameters in groups that the module does not have.
        twin: A copy of the module; None if none was needed or possible.
    """

    parameters: dict[str, Tensor]
    state: dict[str, Tensor]
    outputs: list[Tensor] | None
    groups: dict[str, int]
    foreign: int
    twin: nn.Module | None


def snapshot_module(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    outputs: list[Tensor] | None,
    with_twin: bool = False,
) -> ModuleSnapshot:
    """Return copies of everything that is compared."""
    held = [id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]]
    named = dict(module.named_parameters())
    own = {id(p) for p in named.values()}
    return ModuleSnapshot(
        parameters={n: p.detach().clone() for n, p in named.items() if is_initialized(p)},
        state={
            **{n: b.detach().clone() for n, b in module.named_buffers() if is_initialized(b)},
            **_optimizer_tensors(trainer, module),
        },
        outputs=outputs,
        groups={n: held.count(id(p)) for n, p in named.items() if p.requires_grad},
        foreign=sum(key not in own for key in held),
        twin=_twin(module) if with_twin else None,
    )


def is_initialized(tensor: Tensor) -> bool:
    """Return False for a parameter of a lazy module that has not run yet."""
    return not nn.parameter.is_lazy(tensor)


def _optimizer_tensors(trainer: pl.Trainer, module: nn.Module) -> dict[str, Tensor]:
    names = {id(p): n for n, p in module.named_parameters()}
    return {
        f"optimizer {i} {names.get(id(parameter), '?')} {key}": value.detach().clone()
        for i, optimizer in enumerate(trainer.optimizers)
        for parameter, state in optimizer.state.items()
        if isinstance(state, dict)
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def _twin(module: nn.Module) -> nn.Module | None:
    """Return a copy of the module; None if it cannot be copied."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            twin = copy.deepcopy(module)
    except Exception:  # noqa: BLE001 - some modules cannot be copied; then nothing is compared
        return None
    for each in twin.modules():
        if "_compiled_call_impl" in vars(each):
            each._compiled_call_impl = None  # it would run the original
    return twin


# ---------------------------------------------------------------------- outputs


def eval_outputs(module: nn.Module, output: Callable[[Any], Any]) -> list[Tensor]:
    """Return the floating-point outputs in evaluation mode. The module is as before."""
    modes = [(each, each.training) for each in module.modules()]
    buffers = [(b, b.clone()) for b in module.buffers() if is_initialized(b)]
    try:
        module.eval()
        with torch.random.fork_rng(), torch.no_grad():
            found = tree_leaves(output(module))
        return [t.detach().clone() for t in found if _is_floating(t)]
    finally:
        for each, mode in modes:
            each.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def output_fault(expected: list[Tensor], now: ModuleSnapshot) -> str:
    """Return how the output differs from what is expected; "" if it is equal up to rounding."""
    outputs = now.outputs or []
    if [t.shape for t in expected] != [t.shape for t in outputs]:
        return "the output has other shapes"
    types = {t.dtype for t in now.parameters.values() if t.is_floating_point()}
    coarsest = max((torch.finfo(dtype).eps for dtype in types), default=0.0)
    for a, b in zip(expected, outputs, strict=True):
        if not a.numel() or _is_same(a, b):
            continue
        scale = float(a.abs().max())
        difference = float((a - b).abs().max())
        unit = max(torch.finfo(a.dtype).eps, coarsest)
        if not difference <= TOLERANCE * unit * scale:
            return f"the output changes by {difference / scale if scale else difference:.1e}"
    return ""


def masked_outputs(
    before: ModuleSnapshot, removed: dict[str, Cuts], output: Output
) -> list[Tensor]:
    """Return the outputs of the copy of before, with everything set to zero that was removed."""
    assert before.twin is not None
    parameters = dict(before.twin.named_parameters())
    for name, cuts in removed.items():
        for dim, indices in cuts:
            if parameters[name].ndim > 1:
                filled = parameters[name].data
                filled.index_fill_(dim, torch.tensor(indices, device=filled.device), 0.0)
    return eval_outputs(before.twin, output)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- tensors


def state_faults(before: ModuleSnapshot, now: ModuleSnapshot) -> list[str]:
    """Compare bit by bit: nothing was applied, or all of it was undone."""
    then, here = {**before.parameters, **before.state}, {**now.parameters, **now.state}
    if then.keys() != here.keys():
        return [f"left or lost {sorted(then.keys() ^ here.keys())[:3]}"]
    changed = [name for name in then if not _is_same(then[name], here[name])]
    return [f"{changed[0]} is not as it was"] if changed else []


def group_faults(before: ModuleSnapshot, now: ModuleSnapshot) -> list[str]:
    """Check that each trainable parameter is in as many groups as before.

    A new one must be in one. It may be in none if no optimizer trains those around it.
    """
    faults = []
    if now.foreign > before.foreign:
        faults.append("an optimizer holds a parameter that the module has no longer")
    for name, count in now.groups.items():
        least = before.groups.get(name, _groups_around(name, before.groups))
        expected = before.groups.get(name, 1)
        if not least <= count <= expected:
            faults.append(f"{name} is in {count} parameter groups instead of {expected}")
    return faults


def _groups_around(name: str, groups: Mapping[str, int]) -> int:
    """Return in how many groups a new parameter must be: 1 if those closest to it are in any."""
    while name:
        name = name.rpartition(".")[0]
        prefix = f"{name}." if name else ""
        closest = [count for other, count in groups.items() if other.startswith(prefix)]
        if closest:
            return int(any(closest))
    return 0


def removed_entries(before: ModuleSnapshot, now: ModuleSnapshot) -> tuple[dict[str, Cuts], str]:
    """Return what was cut out of each parameter; and a fault if something else has changed."""
    if before.parameters.keys() != now.parameters.keys():
        return {}, f"new or gone: {sorted(before.parameters.keys() ^ now.parameters.keys())[:3]}"
    found = {}
    for name, old in before.parameters.items():
        cuts = [] if is_weight_norm_gain(name) else _cuts(old, now.parameters[name])
        if cuts is None:
            return {}, f"{name}: what survives is changed"
        found[name] = cuts
    return found, ""


def is_weight_norm_gain(name: str) -> bool:
    """Return whether a parameter is the gain of a weight norm.

    Where inputs are removed, it is rescaled, so that the surviving weights stay as they were.
    """
    return name.endswith((".weight_g", ".parametrizations.weight.original0"))


def _cuts(old: Tensor, new: Tensor) -> Cuts | None:
    """Return (dim, removed indices) of each dim that has shrunk; None if all else is not equal."""
    if old.ndim != new.ndim:
        return None
    dims = [d for d in range(old.ndim) if old.shape[d] != new.shape[d]]
    if not dims:
        return [] if _is_same(old, new) else None
    if len(dims) == 1:
        kept = _kept_slices(old, new, dims[0])
        return None if kept is None else [(dims[0], _complement(kept, old.shape[dims[0]]))]
    choices = [
        itertools.combinations(range(old.shape[d]), old.shape[d] - new.shape[d]) for d in dims
    ]
    for removed in itertools.product(*choices):
        rest = old
        for dim, indices in zip(dims, removed, strict=True):
            left = _complement([*indices], rest.shape[dim])
            rest = rest.index_select(dim, torch.tensor(left, device=rest.device))
        if _is_same(rest, new):
            return [(dim, [*indices]) for dim, indices in zip(dims, removed, strict=True)]
    return None


def _kept_slices(old: Tensor, new: Tensor, dim: int) -> list[int] | None:
    """Return the indices of those slices of ``old`` that ``new`` consists of, in order."""
    kept: list[int] = []
    for i in range(old.shape[dim]):
        if len(kept) < new.shape[dim] and _is_same(old.select(dim, i), new.select(dim, len(kept))):
            kept.append(i)
    return kept if len(kept) == new.shape[dim] else None


def _complement(indices: list[int], size: int) -> list[int]:
    return sorted(set(range(size)) - set(indices))


def _is_same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.layout != torch.strided:
        a, b = a.to_dense(), b.to_dense()
    if not _is_floating(a):
        return torch.equal(a, b)
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


# ---------------------------------------------------------------------- reasons


def names_part_of_training(reason: str, trainer: Any, module: nn.Module) -> bool:
    """Return whether a reason names a layer, parameter, class, callback or argument."""
    names = {name for name, _ in module.named_modules() if name}
    names |= {name for name, _ in module.named_parameters()}
    objects = [*module.modules(), *trainer.optimizers, *trainer.callbacks]
    names |= {type(each).__name__ for each in objects} | {"forward="}
    names |= {name for name in vars(module) if not name.startswith("_")}
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", reason) for name in names)
