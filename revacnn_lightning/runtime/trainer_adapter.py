"""What a Lightning Trainer tells the callback about the run. Knows Lightning by its names only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.sample_forward import images_of, to_float

__all__ = ["edit_refusal", "inspection_refusal", "logged_numbers", "loss_scale", "validation_image"]


def validation_image(trainer: Any, index: int) -> Tensor:
    """Image ``index`` of the (first) validation data set, on the model's device.

    Raises:
        Refused: there is no validation data, or no such image in it.
    """
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, (list, tuple)) and loaders else loaders
    data = getattr(loader, "dataset", None)
    if data is None or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise EditRefusedError("this training has no validation images to choose from")
    if not 0 <= index < len(data):
        raise EditRefusedError(f"there is no validation image {index}; there are {len(data)}")
    with torch.random.fork_rng(devices=[]):  # a transform may draw from it
        image = images_of(data[index])
    if image is None or image.ndim != 3:
        raise EditRefusedError(f"item {index} of the validation data is not an image")
    return image.to(trainer.strategy.root_device)


def edit_refusal(trainer: Any) -> str:
    """Why the network of this training cannot be changed; "" if it can."""
    if trainer.world_size > 1:
        return (
            f"this training runs in {trainer.world_size} processes; the network can only be "
            "changed in a training of one process for now"
        )
    return ""


def inspection_refusal(trainer: Any) -> str:
    """Why this process may not run the network by itself in between; "" if it may."""
    if trainer.world_size > 1:
        count = trainer.world_size
        return f"this training runs in {count} processes, which must run the network together"
    return ""


def loss_scale(trainer: Any) -> Tensor | float:
    """What 16-mixed precision multiplies the loss by; 1 without a scaler.

    As the scaler's own tensor, because `get_scale` would wait for the device.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not scaler.is_enabled():
        return 1.0
    scale: Tensor | None = scaler._scale  # None before its first use, which creates it lazily
    return float(scaler.get_scale()) if scale is None else scale


def logged_numbers(metrics: dict[str, Tensor]) -> dict[str, float]:
    """What the module has logged, as far as it is a number each."""
    values = ((name, to_float(value)) for name, value in metrics.items())
    return {name: value for name, value in values if value is not None}
