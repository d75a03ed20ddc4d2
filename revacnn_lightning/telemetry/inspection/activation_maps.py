"""Activation maps of a chosen image, computed between two batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.telemetry.conv import device_of
from revacnn_lightning.telemetry.inspection.map_images import MIDDLE, first_image_thumbnails
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.recording.following_nonlinearity import report_activation_maps
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["compute_activation_maps"]


def compute_activation_maps(
    model: nn.Module,
    image: Tensor,
    convs: dict[str, UnitLayer],
    forward: Callable[[Tensor], Any] | None = None,
    depths: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Run one forward in eval mode and return the activation maps of ``image``.

    The forward has no side effects: batch-norm statistics, random state, gradients and the modules'
    modes are restored.

    Args:
        model: the network.
        image: (channels, H, W).
        convs: the layers of interest, by name.
        forward: passes a batch of one image through the model; by default the model itself.
        depths: which slice to show of the layers whose maps are volumes, from 0 to 1.

    Returns:
        Downsampled maps (C, h, w) of each layer that the forward calls.
    """
    names = {conv: name for name, conv in convs.items()}
    maps: dict[str, Tensor] = {}

    def on_activation(name: str, module: nn.Module, output: Tensor) -> None:
        images = first_image_thumbnails(convs[name], output, (depths or {}).get(name, MIDDLE))
        if images is not None:
            maps[name] = images

    device = device_of(next(iter(convs.values())))
    with side_effect_free(model, training=False), report_activation_maps(names, on_activation):
        (forward or model)(image.to(device, copy=True).unsqueeze(0))
    return maps
