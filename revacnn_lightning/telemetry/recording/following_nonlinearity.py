"""Which module's output is a conv's activation map.

A conv is often followed by a normalization and a non-linearity. Where these are modules, the tensor
that one returns is the very tensor that the next receives. `MapOwners` tracks tensors from call
to call, so that a ReLU module shared by the whole network is resolved by its input. Plain code
between modules (``out += identity``) ends the chain: the sum of two branches is not the map of
either conv.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

__all__ = ["MapOwners", "is_nonlinearity", "is_normalization", "report_activation_maps"]

_NORMALIZATIONS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.Identity,
)

# Elementwise functions only: a softmax or a gated unit mixes channels.
_NONLINEARITIES = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,  # and its subclass ReLU6
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.RReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)


def is_normalization(module: nn.Module) -> bool:
    """Return whether the module rescales a map without mixing its channels."""
    return isinstance(module, _NORMALIZATIONS)


def is_nonlinearity(module: nn.Module) -> bool:
    """Return whether the module is an elementwise non-linearity."""
    return isinstance(module, _NONLINEARITIES)


class MapOwners:
    """Tensors on their way from one module to the next, each with the owner of the map.

    Keeps no tensor alive. A tensor loses its owner when anything but the module that receives it
    writes to it, which its version counter shows.
    """

    def __init__(self) -> None:
        self._owners: dict[int, tuple[weakref.ref[Tensor], int, Any]] = {}

    def set_owner(self, tensor: Tensor, owner: object) -> None:
        """Register ``tensor`` as the map of ``owner``."""
        if tensor.is_inference():
            return  # has no version counter
        self._owners[id(tensor)] = (weakref.ref(tensor), tensor._version, owner)

    def find_owner(self, received: object, returned: object) -> Any:
        """Return the owner of the tensor that a module received; None if it has none.

        A module that works in place returns the tensor that it received, with its version raised
        by one.
        """
        entry = self._owners.get(id(received))
        if entry is None:
            return None
        reference, version, owner = entry
        if not isinstance(received, Tensor) or reference() is not received:
            return None  # another tensor at the same address
        writes = received._version - version
        return owner if writes == (1 if received is returned else 0) else None

    def clear(self) -> None:
        """Discard all tensors."""
        self._owners.clear()


@contextlib.contextmanager
def report_activation_maps(
    convs: Mapping[Any, str], on_activation: Callable[[str, nn.Module, Tensor], None]
) -> Iterator[None]:
    """Report the activation maps of ``convs`` in the forwards that run in this context.

    ``on_activation(name, module, output)`` is called with the output of a layer, and again with
    that of the non-linearity that follows it: the last call has the activation map.
    """
    owners = MapOwners()

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not isinstance(output, Tensor):
            return
        if module in convs:
            owners.set_owner(output, convs[module])
            on_activation(convs[module], module, output)
        elif args and (is_normalization(module) or is_nonlinearity(module)):
            name = owners.find_owner(args[0], output)
            if name is not None and is_normalization(module):
                owners.set_owner(output, name)
            elif name is not None:
                on_activation(name, module, output)

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
