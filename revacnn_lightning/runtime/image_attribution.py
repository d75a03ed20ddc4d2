"""What of an input activates a filter, or the reason why that cannot be computed.

The input is an image (channels, H, W), a signal (channels, L) or a volume (channels, D, H, W).
"""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.runtime.image_predictions import Forward
from revacnn_lightning.telemetry.inspection.attribution import (
    Attribution,
    TracedActivation,
    attribute_filter_response,
    trace_activation,
)
from revacnn_lightning.telemetry.inspection.receptive_field import ReceptiveFields

__all__ = ["NO_IMAGES", "FilterAttributor", "input_refusal"]

log = logging.getLogger(__name__)

MAX_TRACES = 16  # cached pairs of layer and image size

NO_FORWARD = (
    "the module's forward does not accept an input alone; pass the option forward=... to say how "
    "to run it"
)
NO_IMAGES = (
    "the batch holds no images (B, channels, H, W), signals (B, channels, L) or volumes to show; "
    "if it does, pass the option images=lambda batch: ... to say where"
)
NO_POSITIONS = (
    "what activates a filter is a part of an image, a signal or a volume; the input here is a row "
    "of numbers, which has no parts"
)
COMPILED = "part of the network is compiled and must not be run in another way meanwhile"


def input_refusal(values: Tensor | None) -> str:
    """Return why attributions cannot be shown on an input; "" for images, signals and volumes."""
    if values is None:
        return NO_IMAGES
    if values.dim() < 2:
        return NO_POSITIONS
    if values.dim() > 4:
        return f"an input of {values.dim() - 1} dimensions besides its channels cannot be shown"
    return "" if values.numel() else "the input is empty"


class FilterAttributor:
    """Computes what of an input activates a filter, and receptive fields.

    Each method may return the reason of a refusal, a str, instead of its result.

    Args:
        model: the network.
        forward: runs it on a batch of one input; None if this is not possible.
        refusal: why the model must not be run between two batches; "" if it may be.
    """

    def __init__(self, model: nn.Module, forward: Forward | None, refusal: str = "") -> None:
        self._model = model
        self._forward = forward
        self._refusal = refusal
        self._traces: dict[tuple[object, ...], TracedActivation | str] = {}

    def reset(self) -> None:
        """Discard everything that depends on the structure of the network."""
        self._traces.clear()

    def attribute(self, layer: str, filter: int, image: Tensor | None) -> Attribution | str:
        """Attribute the response of a filter to the pixels of an input."""
        refusal = input_refusal(image)
        if refusal or image is None:
            return refusal
        traced = self.trace_layer(layer, image)
        if isinstance(traced, str) or self._forward is None:
            return traced if isinstance(traced, str) else NO_FORWARD
        try:
            return attribute_filter_response(self._model, self._forward, traced, filter, image)
        except Exception as error:  # of the user's forward or of captum
            log.info("Cannot attribute %s · %d", layer, filter, exc_info=True)
            return _describe_failure(error)

    def receptive_fields(self, layer: str, image: Tensor | None) -> ReceptiveFields | None:
        """Return the layer's receptive fields; None if unknown."""
        if image is None or input_refusal(image):
            return None
        traced = self.trace_layer(layer, image)
        if isinstance(traced, str) or not traced.has_receptive_field:
            return None
        return traced.receptive_field

    def trace_layer(self, layer: str, image: Tensor) -> TracedActivation | str:
        """Trace how the pixels of an input of this size reach the layer."""
        key = layer, tuple(image.shape)
        if key not in self._traces:
            if len(self._traces) >= MAX_TRACES:
                self._traces.clear()
            self._traces[key] = self._trace(layer, image)
        return self._traces[key]

    def _trace(self, layer: str, image: Tensor) -> TracedActivation | str:
        if self._refusal or self._forward is None:
            return self._refusal or NO_FORWARD
        if any("_orig_mod" in module._modules for module in self._model.modules()):
            return COMPILED
        try:
            conv: Any = self._model.get_submodule(layer)
            traced = trace_activation(self._model, self._forward, conv, image)
        except Exception as error:  # of the user's forward
            log.info("Cannot trace the input of %s", layer, exc_info=True)
            return _describe_failure(error)
        return traced or "the forward of one input does not reach this layer"


def _describe_failure(error: Exception) -> str:
    return f"the forward of one input failed ({type(error).__name__}: {error})"
