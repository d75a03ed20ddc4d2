"""One call of a recorded training step, and what its arguments are made of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["AutocastState", "RecordedCall", "TensorReference"]


class TensorReference:
    """Stands in the arguments of a recorded call for a tensor of the step."""

    def __init__(self, index: int) -> None:
        self.index = index


@dataclass(frozen=True)
class AutocastState:
    """The state of autocast during a call."""

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, device_type: str) -> AutocastState:
        """Return the state of autocast on a type of device."""
        try:
            enabled = torch.is_autocast_enabled(device_type)
            return cls(device_type, enabled, torch.get_autocast_dtype(device_type))
        except (TypeError, AttributeError):  # before torch 2.4
            if device_type == "cpu":
                return cls("cpu", torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype())
            return cls("cuda", torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype())

    def context(self) -> Any:
        """Return a context in which autocast has this state."""
        if self == AutocastState.current(self.device_type):
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled)


@dataclass
class RecordedCall:
    """One call of a module or of a torch function.

    Attributes:
        name: the name of the function or module that is called, for messages.
        function: called with the model, then with the arguments.
        arguments: (args, kwargs), with a `TensorReference` for every tensor but parameters and
            buffers; None if the call cannot be repeated.
        inputs: the tensors of the step that it reads, by index.
        outputs: index of each tensor that it returns; None for parameters and buffers.
        changed: the tensors that it changes, by index.
        shapes: the shapes of the returned tensors, on all samples of the step.
        values: copies of the returned tensors, on a few samples.
        autocast: the state of autocast.
        has_modules: whether it runs modules of the network.
        is_of_model: whether it calls the network itself, not a part of it.
        has_gradient: whether a gradient may flow back through what it returns.
        is_in_training: whether it is replayed in the modes of the step, because it returns other
            tensors in evaluation mode.
        failure: why it is opaque; "" if it can be replayed.
    """

    name: str
    function: Callable[..., Any]
    arguments: Any
    inputs: list[int]
    autocast: AutocastState
    has_modules: bool = False
    is_of_model: bool = False
    has_gradient: bool = False
    is_in_training: bool = False
    failure: str = ""
    outputs: list[int | None] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def is_opaque(self) -> bool:
        return bool(self.failure)

    @property
    def has_single_tensor(self) -> bool:
        """Whether it was called with one tensor and nothing else."""
        args, kwargs = self.arguments if self.arguments is not None else ([], {})
        return len(args) == 1 and isinstance(args[0], TensorReference) and not kwargs
