"""Running a model between two batches so that the training cannot tell."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["undisturbed"]


@contextlib.contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode, without gradients unless they are enabled inside.

    Afterwards the modules' modes and the random generators of the host and of ``device`` are as
    they were. Eval mode is what leaves the statistics of batch-norms alone.
    """
    training = [module for module in model.modules() if module.training]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
