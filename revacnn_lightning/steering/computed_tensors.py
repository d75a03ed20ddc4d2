"""Tensors that a module computes from others in each forward, such as a weight-normalized weight.

Edits change the *originals* that such a tensor is computed from. Which role each original has
follows from what computes it; nothing here runs that code:

- weight norm (Salimans & Kingma 2016), w = g v / ‖v‖: the *direction* v has the shape of the
  weight, the *gain* g one entry per norm. An edit of v adapts g, so that the remaining entries of w
  stay as they are;
- pruning masks (`torch.nn.utils.prune`), w = mask · w_orig: new entries are not masked;
- a parametrization of one tensor (`torch.nn.utils.parametrize`), w = f(w_orig): the trace finds out
  which channels f couples;
- a spectral norm as a hook (Miyato et al. 2018), w = w_orig / σ: as such a parametrization;
- orthogonal parametrizations couple all filters: they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from revacnn_lightning.telemetry.conv import parametrization_of
from revacnn_lightning.telemetry.module_tree import list_named_modules

__all__ = [
    "ComputedTensor",
    "computed_tensors",
    "has_tensor",
    "hook_attribute_names",
    "hook_attribute_values",
    "tensor_or_original",
    "tensors_defining_filters",
]

_REASONS = {
    "_Orthogonal": "its orthogonal parametrization keeps all filters orthogonal to each other",
}


@dataclass(frozen=True)
class ComputedTensor:
    """A tensor that a module computes from others in each forward. Names are qualified.

    Attributes:
        module: the module, such as "conv1".
        name: the tensor in the module, such as "weight".
        direction: the original that has its shape; "" if that is unknown.
        gain: the original that holds the norms of a weight norm; "" for other computations.
        mask: the buffer that holds the mask of pruned entries; "" for other computations.
        originals: all tensors that it is computed from.
        refusal: why none of its channels can be edited; "" if that depends on the trace.
        vectors: the buffers that hold the singular vectors of a spectral norm as a hook.
    """

    module: str
    name: str
    direction: str = ""
    gain: str = ""
    mask: str = ""
    originals: tuple[str, ...] = ()
    refusal: str = ""
    vectors: tuple[str, ...] = ()


def computed_tensors(model: nn.Module) -> list[ComputedTensor]:
    """Return all tensors that modules of the model compute in each forward, as far as known."""
    found: list[ComputedTensor] = []
    for path, module in list_named_modules(model):
        found += _parametrized(path, module)
        found += _computed_by_hooks(path, module)
    return found


def tensor_or_original(module: nn.Module, name: str) -> Tensor | None:
    """Return the tensor of this name or, where it is computed, the original of its shape.

    None if the module has neither.
    """
    own: Tensor | None = module._parameters.get(name)
    if own is None:
        own = module._buffers.get(name)
    if own is not None:
        return own
    for computed in (*_parametrized("", module), *_computed_by_hooks("", module)):
        if computed.name == name and computed.direction:
            return _find(module, computed.direction)
    return None


def _find(module: nn.Module, name: str) -> Tensor | None:
    """Return a parameter or buffer by its qualified name."""
    path, _, attribute = name.rpartition(".")
    holder = module.get_submodule(path)
    return holder._parameters.get(attribute, holder._buffers.get(attribute))


def tensors_defining_filters(conv: nn.Module) -> list[Tensor] | None:
    """Return the tensors whose entries, along the filters, determine each filter of a conv.

    They are the weight itself, the dense weight under a mask, or gain and direction of a weight
    norm. None if the filters are not computed one by one, or if that is unknown.
    """
    weight = conv._parameters.get("weight")
    if weight is not None:
        return [weight]
    rows = 1 if getattr(conv, "transposed", False) else 0
    for computed in (*_parametrized("", conv), *_computed_by_hooks("", conv)):
        if computed.name != "weight" or not (computed.gain or computed.mask):
            continue
        direction = _find(conv, computed.direction)
        gain = _find(conv, computed.gain) if computed.gain else None
        if direction is None or gain is None:
            return None if direction is None else [direction]
        return [gain, direction] if gain.ndim and gain.shape[rows] > 1 else None
    return None


def has_tensor(module: nn.Module, name: str) -> bool:
    """Return whether the module has a tensor of this name, which may be computed."""
    is_parametrized = parametrization_of(module, name) is not None
    return is_parametrized or tensor_or_original(module, name) is not None


def hook_attribute_names(module: nn.Module) -> set[str]:
    """Return the names of the plain attributes that known hooks set before each forward."""
    return {computed.name for computed in _computed_by_hooks("", module)}


def hook_attribute_values(module: nn.Module) -> dict[str, Tensor]:
    """Return the plain attributes that hooks set before each forward, computed once more.

    They are those of masks and of hook-based norms of weights, whose computations have no effects.
    Until the next forward, the user's code would read them in their old shape.
    """
    values: dict[str, Tensor] = {}
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            values[hook.name] = hook.compute_weight(module)
        elif isinstance(hook, SpectralNorm):
            values[hook.name] = hook.compute_weight(module, do_power_iteration=False)
        elif isinstance(hook, BasePruningMethod):
            values[hook._tensor_name] = hook.apply_mask(module)
    return {name: value for name, value in values.items() if name in vars(module)}


def _parametrized(path: str, module: nn.Module) -> Iterator[ComputedTensor]:
    table = getattr(module, "parametrizations", None)
    for name, steps in table._modules.items() if isinstance(table, nn.ModuleDict) else ():
        if isinstance(steps, ParametrizationList):
            yield _of_parametrization(path, name, steps)


def _of_parametrization(path: str, name: str, steps: ParametrizationList) -> ComputedTensor:
    prefix = f"{path}.parametrizations.{name}" if path else f"parametrizations.{name}"
    tensors = [*steps.named_parameters(prefix), *steps.named_buffers(prefix)]
    originals = tuple(each for each, _ in tensors)
    kinds = [_kind(step) for step in steps._modules.values()]
    reason = next((_REASONS[kind] for kind in kinds if kind in _REASONS), "")
    direction, gain = f"{prefix}.original", ""
    if kinds[0] == "_WeightNorm":
        direction, gain = f"{prefix}.original1", f"{prefix}.original0"
    elif not steps.is_tensor:
        direction = ""
        reason = reason or f"its parametrization {kinds[0]} computes {name} from several tensors"
    elif steps.unsafe:
        reason = reason or f"its parametrization {kinds[0]} may change the shape of {name}"
    return ComputedTensor(path, name, direction, gain, "", originals, _refusal(path, reason))


def _computed_by_hooks(path: str, module: nn.Module) -> Iterator[ComputedTensor]:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            gain, direction = (_join(path, hook.name + end) for end in ("_g", "_v"))
            yield ComputedTensor(path, hook.name, direction, gain, "", (gain, direction))
        elif isinstance(hook, SpectralNorm):
            names = tuple(_join(path, hook.name + end) for end in ("_orig", "_u", "_v"))
            yield ComputedTensor(path, hook.name, names[0], "", "", names, vectors=names[1:])
        elif isinstance(hook, BasePruningMethod):
            name: str = hook._tensor_name
            direction, mask = (_join(path, name + end) for end in ("_orig", "_mask"))
            yield ComputedTensor(path, name, direction, "", mask, (direction, mask))


def _kind(step: Any) -> str:
    """Return the class name of a parametrization; those of torch have no public classes."""
    return type(step).__name__


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _refusal(path: str, reason: str) -> str:
    """Return the reason for use after "these filters …"."""
    return f"are read or produced by {path or 'the model'}, and {reason}" if reason else ""
