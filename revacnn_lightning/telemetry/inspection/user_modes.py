"""Suspends the dispatch and function modes of torch that the user has entered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

try:
    from torch.overrides import (
        _get_current_function_mode_stack,
    )
    from torch.overrides import (
        _pop_mode_temporarily as _without_function_mode,
    )
    from torch.overrides import (
        _push_mode as _push_function_mode,
    )
    from torch.utils._device import DeviceContext
    from torch.utils._python_dispatch import (
        _get_current_dispatch_mode_stack,
    )
    from torch.utils._python_dispatch import (
        _pop_mode_temporarily as _without_dispatch_mode,
    )

    CAN_SUSPEND = True
except ImportError:  # another release of torch: the modes stay active
    CAN_SUSPEND = False

__all__ = ["CAN_SUSPEND", "torch_modes_suspended"]


@contextmanager
def torch_modes_suspended() -> Iterator[None]:
    """Suspend all modes that are active now, so that they do not see what runs inside.

    These are `TorchDispatchMode` and `TorchFunctionMode`. A default device stays in effect. Modes
    can be entered inside. If the release of torch cannot suspend modes, they stay active.
    """
    with ExitStack() as stack:
        if CAN_SUSPEND:
            for _ in _get_current_dispatch_mode_stack():
                stack.enter_context(_without_dispatch_mode())
            _suspend_function_modes(stack)
        yield


def _suspend_function_modes(stack: ExitStack) -> None:
    """Remove the function modes until the stack is closed, except for the default device."""
    modes: list[Any] = _get_current_function_mode_stack()
    kept = [mode for mode in modes if isinstance(mode, DeviceContext)]
    if len(kept) == len(modes):
        return
    for _ in modes:
        stack.enter_context(_without_function_mode())
    for mode in kept:
        _push_function_mode(mode)
        stack.callback(torch.overrides._pop_mode)
