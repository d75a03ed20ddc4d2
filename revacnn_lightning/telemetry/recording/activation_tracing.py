"""Which module's output is a conv's activation map as the network passes it on.

A conv is often followed by a batch-norm and a non-linearity. Where these are modules, the trace of
one forward tells: the very tensor that one returns is what the next receives. `ActivationTrace` follows
tensors this way, call by call, so that a ReLU shared by a whole network is told apart by what it is
given. What happens between modules in plain code (``out += identity``) ends the trail: the sum of
two branches is not the map of either conv.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

__all__ = ["ActivationTrace", "following", "is_nonlinearity", "is_normalization"]

_NORMS = (
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
    nn.Hardtanh,  # and ReLU6, its subclass
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
    """Whether the module scales a map without changing which filter it belongs to."""
    return isinstance(module, _NORMS)


def is_nonlinearity(module: nn.Module) -> bool:
    """Whether the module is an elementwise non-linearity."""
    return isinstance(module, _NONLINEARITIES)


class ActivationTrace:
    """Tensors that are the map of a known conv, on their way to the next module.

    Holds no tensor alive. A tensor is on the trail as long as nothing but the module it is handed
    to has written to it, which its version counter tells.
    """

    def __init__(self) -> None:
        self._marks: dict[int, tuple[weakref.ref[Tensor], int, Any]] = {}

    def mark(self, tensor: Tensor, owner: object) -> None:
        """``tensor`` is now the map of ``owner``."""
        if tensor.is_inference():
            return  # has no version counter
        self._marks[id(tensor)] = (weakref.ref(tensor), tensor._version, owner)

    def take(self, given: object, returned: object) -> Any:
        """The owner of the tensor ``given`` to a module that ``returned`` another, or None.

        A module that works in place has raised the version by one and returned what it was given.
        """
        mark = self._marks.get(id(given))
        if mark is None:
            return None
        reference, version, owner = mark
        if not isinstance(given, Tensor) or reference() is not given:
            return None  # another tensor that was given the same address
        changed = given._version - version
        return owner if changed == (1 if given is returned else 0) else None

    def clear(self) -> None:
        """Forget all tensors."""
        self._marks.clear()


@contextlib.contextmanager
def following(
    convs: Mapping[Any, str], saw: Callable[[str, nn.Module, Tensor], None]
) -> Iterator[None]:
    """Tell of the maps of these convs in the forwards that are run inside.

    ``saw(name, module, output)`` is called with the output of a conv, and again with that of the
    non-linearity that follows it: the last call is the map as the network passes it on.
    """
    trail = ActivationTrace()

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not isinstance(output, Tensor) or output.dim() != 4:
            return
        if module in convs:
            trail.mark(output, convs[module])  # and as long as no non-linearity follows:
            saw(convs[module], module, output)
        elif args and (is_normalization(module) or is_nonlinearity(module)):
            name = trail.take(args[0], output)
            if name is not None and is_normalization(module):
                trail.mark(output, name)
            elif name is not None:
                saw(name, module, output)

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
