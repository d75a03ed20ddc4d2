"""What is sent of coefficients and maps in their place: few numbers that keep what matters."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.recording.activation_tracing import following
from revacnn_lightning.telemetry.statistics import Conv

__all__ = ["features", "maps_of_image", "thumbnails"]

FEATURES = 64  # dimensions of what is embedded
MAP_ELEMENTS = 2**16  # of the maps of a layer, together: 128 KB
MAX_SIDE = 32  # pixels of a map that is sent


def features(rows: Tensor) -> Tensor:
    """(C, K) -> (C, min(K, 64)): the rows, or a random projection that keeps distances."""
    rows = rows.float()
    coefficients = rows.shape[1]
    if coefficients <= FEATURES:
        return rows
    return rows @ _projection(coefficients, rows.device)


@functools.lru_cache(maxsize=8)
def _projection(coefficients: int, device: torch.device) -> Tensor:
    """(K, 64), the same in every process; with a generator of its own, so that training's RNG
    is left alone."""
    generator = torch.Generator().manual_seed(coefficients)
    matrix = torch.randn(coefficients, FEATURES, generator=generator) / math.sqrt(FEATURES)
    return matrix.to(device)


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
    maps: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, output: Tensor) -> None:
        maps[name] = thumbnails(output[0])

    device = next(iter(convs.values())).weight.device
    with side_effect_free(model, training=False), following(names, keep):
        (forward or model)(image.to(device).unsqueeze(0))
    return maps
