"""The states of all random generators that a training step may use."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["RandomState"]


@dataclass(frozen=True)
class RandomState:
    """The random states of torch, also on devices, of NumPy and of Python at one moment."""

    cpu: Tensor
    cuda: dict[int, Tensor]
    numpy: Any
    python: Any

    @classmethod
    def current(cls, tensors: Iterable[Tensor]) -> RandomState:
        """Return the present states, on the devices of ``tensors``."""
        devices = {t.device.index for t in tensors if t.device.type == "cuda"}
        return cls(
            torch.get_rng_state(),
            {i: torch.cuda.get_rng_state(i) for i in devices if i is not None},
            np.random.get_state(),
            random.getstate(),
        )

    def restore(self) -> None:
        """Give all generators these states."""
        torch.set_rng_state(self.cpu)
        for index, state in self.cuda.items():
            torch.cuda.set_rng_state(state, index)
        np.random.set_state(self.numpy)
        random.setstate(self.python)
