"""Running a model between training batches without changing anything training depends on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["inside_side_effect_free", "side_effect_free"]

_ACTIVE = ContextVar("side_effect_free", default=False)


@contextmanager
def side_effect_free(model: nn.Module, training: bool | None = None) -> Iterator[None]:
    """Run forwards of ``model`` and restore its state and all random states afterwards.

    Restored, also after an exception:

    - the random states of torch (CPU, and every CUDA device that holds a parameter), NumPy and
      Python;
    - the values of all buffers, such as the running statistics of batch norms;
    - the ``training`` flag of every module;
    - the ``.grad`` attribute of every parameter, as an object: a backward pass inside that adds
      to an existing gradient in place is not undone.

    Gradients are disabled inside; ``torch.enable_grad()`` enables them again.

    Args:
        training: the mode of all modules inside; None keeps the mode of each.
    """
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules]
    buffers = [
        (module._buffers, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    gradients = [(p, p.grad) for m in modules for p in m._parameters.values() if p is not None]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    token = _ACTIVE.set(True)
    try:
        with torch.random.fork_rng(_cuda_devices(p for p, _ in gradients)), torch.no_grad():
            for module, mode in modes:
                if training is not None and mode != training:
                    _set_mode(module, training)
            yield
    finally:
        _ACTIVE.reset(token)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for module, mode in modes:
            if module.training != mode:
                _set_mode(module, mode)
        for owner, name, buffer, value in buffers:
            owner[name] = buffer
            _assign(buffer, value)
        for parameter, gradient in gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient


def inside_side_effect_free() -> bool:
    """Return whether the caller runs inside `side_effect_free`."""
    return _ACTIVE.get()


def _assign(buffer: Tensor, value: Tensor) -> None:
    """Set the values of a buffer without increasing its version counter.

    A graph that the user keeps across batches may have saved the buffer.
    """
    if buffer.is_inference():  # assigned by the user's validation, and only writable in this mode
        with torch.inference_mode():
            buffer.copy_(value)
    else:
        buffer.data.copy_(value)


def _set_mode(module: nn.Module, training: bool) -> None:
    """Set ``module.training`` without the search of ``nn.Module.__setattr__``, which is slow."""
    object.__setattr__(module, "training", training)


def _cuda_devices(parameters: Iterable[Tensor]) -> list[int]:
    """Return the sorted indices of the CUDA devices that hold ``parameters``."""
    return sorted(
        {
            p.device.index
            for p in parameters
            if p.device.type == "cuda" and p.device.index is not None
        }
    )
