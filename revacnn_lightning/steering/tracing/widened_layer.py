"""Traces a layer of a single filter, whose path no label shows: a dimension of size 1 has none.

The layer gets a few extra filters for the time of the trace, and whatever reads them the entries
that it needs. The forward itself says what that is: a module that does not fit raises. Where the
extra filters go, the single one goes, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import register_module_forward_pre_hook

from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import ForwardFailedError, ForwardProbe
from revacnn_lightning.steering.tracing.raising_module import raising_module_name
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.unit_layers import (
    UnitLayer,
    group_count,
    is_transposed,
    kernel_size,
)

__all__ = ["EXTRA_FILTERS", "traced_with_extra_filters"]

EXTRA_FILTERS = 6  # so that the width, 7, is hardly that of anything else
MAX_READERS = 64

Sizes = dict[str, tuple[int, ...]]  # module -> shape of the first tensor it was called with


@contextmanager
def traced_with_extra_filters(
    model: nn.Module, layer: str, probe: ForwardProbe
) -> Iterator[ChannelGroups]:
    """Yield the channel groups of the model with extra filters before the single one of a layer.

    Inside, the model has these filters; afterwards it is as it was.

    Raises:
        ForwardFailedError: the forward does not accept them, or the layer has no weight of its own.
    """
    with side_effect_free(model):
        module = model.get_submodule(layer)
        if not isinstance(module, UnitLayer) or not _add_filters(module):
            raise ForwardFailedError(f"{layer} computes its weight")
        yield _trace(model, probe)


def _trace(model: nn.Module, probe: ForwardProbe) -> ChannelGroups:
    modules = dict(model.named_modules())
    names = {id(module): name for name, module in modules.items()}
    for _ in range(MAX_READERS):
        called: Sizes = {}

        def record(module: nn.Module, args: Any, called: Sizes = called) -> None:
            if id(module) in names and args and isinstance(args[0], Tensor):
                called[names[id(module)]] = tuple(args[0].shape)

        handle = register_module_forward_pre_hook(record)
        try:
            return trace_channel_groups(model, probe)
        except ForwardFailedError as error:
            name = raising_module_name(model, error)
            if name not in called or not _fit(modules[name], called[name]):
                raise
        finally:
            handle.remove()
    raise ForwardFailedError("too many layers read the filter")


def _add_filters(layer: UnitLayer) -> bool:
    """Add extra filters before the single one; return whether that is possible."""
    if group_count(layer) > 1:
        return False
    size = 1 + EXTRA_FILTERS
    is_possible = _extend(layer, "weight", 1 if is_transposed(layer) else 0, size, before=True)
    if is_possible and layer.bias is not None:
        is_possible = _extend(layer, "bias", 0, size, before=True)
    vars(layer)["out_features" if isinstance(layer, nn.Linear) else "out_channels"] = size
    return is_possible


def _fit(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Give a module the entries that an input of this shape needs; return whether that helps."""
    if isinstance(module, nn.Linear):
        vars(module)["in_features"] = shape[-1]
        return _extend(module, "weight", 1, shape[-1])
    if isinstance(module, UnitLayer) and group_count(module) == 1:
        dims = len(kernel_size(module))
        size = shape[-(dims + 1)] if len(shape) > dims else 0
        vars(module)["in_channels"] = size
        return _extend(module, "weight", 0 if is_transposed(module) else 1, size)
    if isinstance(module, (_BatchNorm, _InstanceNorm)) and len(shape) > 1:
        vars(module)["num_features"] = shape[1]
        own = {**module._parameters, **module._buffers}
        entries = [name for name, tensor in own.items() if tensor is not None and tensor.ndim == 1]
        return bool(entries) and all(_extend(module, name, 0, shape[1]) for name in entries)
    return False


def _extend(module: nn.Module, name: str, dim: int, size: int, *, before: bool = False) -> bool:
    """Extend a dimension of a tensor by copies of its first entry; return whether it was smaller.

    Behind the present entries or ``before`` them. The values do not matter, only that they are
    finite and as usual.
    """
    table: Any = module._parameters if name in module._parameters else module._buffers
    tensor = table.get(name)
    if tensor is None or type(tensor) not in (Tensor, nn.Parameter) or tensor.shape[dim] >= size:
        return False
    count = size - tensor.shape[dim]
    extra = tensor.detach().narrow(dim, 0, 1).repeat_interleave(count, dim)
    parts = [extra, tensor.detach()] if before else [tensor.detach(), extra]
    extended = torch.cat(parts, dim)
    is_parameter = isinstance(tensor, nn.Parameter)
    table[name] = nn.Parameter(extended, tensor.requires_grad) if is_parameter else extended
    return True
