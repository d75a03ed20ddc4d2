"""Runs a forward in double precision, whatever types the model computes in.

Whether an edit kept the function of a network is a question of arithmetic, not of rounding. In
single precision a difference of 1e-4 may be either; in double precision a correct edit differs by
1e-14 and a wrong one still by 1e-4.

The model's own Python runs. Every aten call gets double-precision copies of its arguments, so
neither the model nor its batch is converted, and everything in between stays in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from revacnn_lightning.telemetry.inspection.dispatch_mode import NoCompileDispatchMode

__all__ = ["DoublePrecisionMode"]

_WIDER = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
_WIDE = frozenset(_WIDER.values())
_HALF_TO_FLOAT = {"_softmax": 2, "_log_softmax": 2}  # the position of a flag that needs half


class DoublePrecisionMode(NoCompileDispatchMode):
    """Computes every operation inside in double precision.

    Views stay as they are: what reads them widens them. What the forward writes into a tensor of
    the model is rounded to the type of that tensor. An operation without a version in double
    precision raises, as it does on devices without that type.

    Args:
        noise: the standard deviation of a relative error that everything widened gets.
    """

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self._noise = noise
        self._generator = torch.Generator().manual_seed(0)
        self._functions = _SameTypes(self.to_double)

    def __enter__(self) -> DoublePrecisionMode:
        torch.clear_autocast_cache()  # its weights are in half precision
        super().__enter__()  # type: ignore[no-untyped-call]
        self._functions.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *details: Any) -> None:
        self._functions.__exit__(*details)  # type: ignore[no-untyped-call]
        super().__exit__(*details)  # type: ignore[no-untyped-call]
        torch.clear_autocast_cache()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        written, is_view = _aliases(func)
        if is_view:
            return func(*args, **kwargs)
        wide_args, wide_kwargs = tree_map(self.to_double, (args, kwargs))
        wide_args = _without_half_flag(func, wide_args)
        out = func(*wide_args, **wide_kwargs)
        originals = {}
        for position, name in written:
            original = args[position] if position < len(args) else kwargs.get(name)
            wide = wide_args[position] if position < len(args) else wide_kwargs.get(name)
            if isinstance(original, Tensor) and wide is not original:
                original.copy_(wide)
                originals[id(wide)] = original
        return tree_map(lambda each: originals.get(id(each), self.to_double(each)), out)

    def to_double(self, value: Any) -> Any:
        """Return a tensor or a type in double precision; anything else as it is."""
        if isinstance(value, torch.dtype):
            return _WIDER.get(value, value)
        wider = _WIDER.get(value.dtype) if isinstance(value, Tensor) else None
        if wider is None:
            return value
        wide = value.to(wider)
        if self._noise:
            noise = torch.randn(wide.shape, generator=self._generator, dtype=torch.float64)
            wide = wide * (1 + self._noise * noise.to(wide.device))
        return wide


def _without_half_flag(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a softmax without the request to convert half precision."""
    position = _HALF_TO_FLOAT.get(func._schema.name.partition("::")[2])
    if position is None or len(args) <= position:
        return args
    return (*args[:position], False, *args[position + 1 :])


class _SameTypes(TorchFunctionMode):
    """Widens the arguments of functions that check that all of them have one type.

    They do so above the dispatcher, where the mode for operations does not see them: an activation
    is widened already, and the weight is not.
    """

    def __init__(self, widened: Callable[[Any], Any]) -> None:
        super().__init__()
        self._widened = widened

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        is_inplace = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
        if not is_inplace and name not in ("__get__", "__set__") and "out" not in kwargs:
            tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
            if any(each.dtype in _WIDE for each in tensors):
                args, kwargs = tree_map(self._widened, (args, kwargs))
        return func(*args, **kwargs)


_ALIASES: dict[Any, tuple[tuple[tuple[int, str], ...], bool]] = {}


def _aliases(func: Any) -> tuple[tuple[tuple[int, str], ...], bool]:
    """Return the arguments that an operation writes to, and whether it returns a view instead."""
    found = _ALIASES.get(func)
    if found is None:
        aliased = [
            (position, argument.name, argument.alias_info.is_write)
            for position, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None
        ]
        written = tuple((position, name) for position, name, is_write in aliased if is_write)
        found = written, bool(aliased) and not written
        _ALIASES[func] = found
    return found
