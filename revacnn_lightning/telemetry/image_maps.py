"""The activation maps of one image, small enough to be sent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from revacnn_lightning.telemetry.following import Trail, is_nonlinearity, is_norm
from revacnn_lightning.telemetry.statistics import Conv

__all__ = ["maps_of_image", "thumbnails"]

MAP_ELEMENTS = 2**16  # of the maps of a layer, together: 128 KB
MAX_SIDE = 32  # pixels of a map that is sent


def thumbnails(maps: Tensor) -> Tensor:
    """(C, H, W) -> (C, h, w) by averaging, so that all maps of a layer stay small together."""
    side = min(MAX_SIDE, max(4, math.isqrt(MAP_ELEMENTS // maps.shape[0])))
    height, width = min(side, maps.shape[1]), min(side, maps.shape[2])
    return nn.functional.adaptive_avg_pool2d(maps.float(), (height, width))


def maps_of_image(
    model: nn.Module,
    image: Tensor,
    convs: dict[str, Conv],
    forward: Callable[[Tensor], Any] | None = None,
) -> dict[str, Tensor]:
    """The activation maps of one image, (C, h, w) each, from a forward in eval mode.

    Batch-norm statistics, the random generators, gradients and the modules' modes are afterwards
    as they were.
    """
    names = {conv: name for name, conv in convs.items()}
    trail, maps = Trail(), {}

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not isinstance(output, Tensor) or output.dim() != 4:
            return
        if module in names:
            name = names[module]
        elif args and (is_norm(module) or is_nonlinearity(module)):
            name = trail.take(args[0], output)
        else:
            return
        if name is None:
            return
        if is_norm(module):
            trail.mark(output, name)
            return
        if module in names:
            trail.mark(output, name)  # and as long as no non-linearity follows:
        maps[name] = thumbnails(output[0])

    device = next(iter(convs.values())).weight.device
    with _undisturbed(model, device):
        handle = register_module_forward_hook(hook)
        try:
            (forward or model)(image.to(device).unsqueeze(0))
        finally:
            handle.remove()
    return maps


@contextlib.contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode without gradients; leaves no trace."""
    training = [module for module in model.modules() if module.training]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
