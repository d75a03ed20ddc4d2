"""The factor by which mixed precision multiplies the loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["loss_scale_of"]


def loss_scale_of(scaler: Any) -> Tensor | float:
    """Return the factor of a gradient scaler; 1 without one, or if it does nothing.

    It is the scaler's own tensor, because `get_scale` would wait for the device.
    """
    if scaler is None or not scaler.is_enabled():
        return 1.0
    scale: Tensor | None = scaler._scale  # None before the first use
    return float(scaler.get_scale()) if scale is None else scale
