"""Attribution of a filter's strongest response to the pixels of an image.

Two gradient-based methods, both computed by captum:

- deconvolution: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks";
- guided backpropagation: Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional
  Net".

They replace the backward pass of ReLUs, which captum does for ``nn.ReLU`` modules only. On a
backward path with any other non-linearity the result would be neither method. `trace_activation`
detects that from the autograd graph.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from revacnn_lightning.telemetry.conv import device_of
from revacnn_lightning.telemetry.inspection.attribution_support import find_refusal
from revacnn_lightning.telemetry.inspection.autograd_graph import backward_path
from revacnn_lightning.telemetry.inspection.receptive_field import (
    PixelBox,
    ReceptiveField,
    compute_receptive_field,
)
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.recording.activation_source import report_activation_maps
from revacnn_lightning.telemetry.unit_layers import UnitLayer, kernel_size, to_maps

__all__ = [
    "Attribution",
    "TracedActivation",
    "attribute",
    "load_captum_methods",
    "trace_activation",
]

Forward = Callable[[Tensor], Any]  # (1, channels, H, W) -> whatever the model returns

NO_CAPTUM = (
    "deconvolution and guided backpropagation need captum where the training runs: "
    "pip install 'revacnn-lightning[inspect]'"
)


@dataclass
class TracedActivation:
    """A layer's activation map in the forward of one image.

    Attributes:
        conv: the layer.
        receptive_field: of the units of the map; the whole image where it is unknown.
        has_receptive_field: whether it is known: rows and columns are traced to those of an image,
            which sequences and volumes have not. A single unit depends on the whole image.
        map_size: (H, W) of the map.
        module: whose output the map is.
        call_index: which of the module's calls returns it, from 0.
        refusal: why neither method applies; "" if both do.
    """

    conv: UnitLayer
    receptive_field: ReceptiveField
    has_receptive_field: bool
    map_size: tuple[int, int]
    module: nn.Module
    call_index: int
    refusal: str = ""


@dataclass
class Attribution:
    """What in an image activates a filter.

    Attributes:
        response: the maximum of the filter's map.
        box: its receptive field.
        deconvolution: attribution (channels, h, w) of the pixels of ``box``; outside it is zero.
            None if refused.
        guided_backpropagation: the same by the other method.
        refusal: why there are no attributions; "" if there are.
    """

    response: float
    box: PixelBox
    deconvolution: Tensor | None = None
    guided_backpropagation: Tensor | None = None
    refusal: str = ""


def trace_activation(
    model: nn.Module, forward: Forward, conv: UnitLayer, image: Tensor
) -> TracedActivation | None:
    """Trace the layer's map in a forward of ``image`` (channels, H, W), without side effects.

    Returns:
        None if the forward of one image does not call the conv.
    """
    pixels = _pixels(image, device_of(conv)).requires_grad_()
    found, relu_nodes = _run_traced(model, forward, conv, pixels)
    if not found:
        return None
    maps, module, call_index = found
    # Reading the graph runs a part of the network again that uses activation checkpointing.
    with side_effect_free(model, training=False):
        refusal = find_refusal(backward_path(maps, pixels), relu_nodes)
        is_traced = len(kernel_size(conv)) == 2
        field = (
            compute_receptive_field(maps, pixels)
            if is_traced
            else ReceptiveField.of_whole_image(maps.shape[2:], pixels.shape[2:])
        )
    has_field = is_traced or maps.shape[2:] == (1, 1)
    return TracedActivation(conv, field, has_field, maps.shape[2:], module, call_index, refusal)


def _pixels(image: Tensor, device: torch.device) -> Tensor:
    """Return a batch of one image (channels, H, W), of floating-point pixels."""
    pixels = image.detach().to(device).clone().unsqueeze(0)
    return pixels if pixels.is_floating_point() else pixels.float()


def _run_traced(
    model: nn.Module, forward: Forward, conv: UnitLayer, pixels: Tensor
) -> tuple[list[Any], dict[nn.Module, list[Any]]]:
    """Return [map, module, call index] of the conv, and the autograd nodes of each ReLU module."""
    found: list[Any] = []
    calls: Counter[nn.Module] = Counter()
    relu_nodes: dict[nn.Module, list[Any]] = defaultdict(list)

    def on_activation(name: str, module: nn.Module, output: Tensor) -> None:
        maps = to_maps(conv, output.clone())  # the network may overwrite its own tensor later
        if maps is not None:
            found[:] = [maps, module, calls[module]]

    def on_forward(module: nn.Module, args: Any, output: Any) -> None:
        calls[module] += 1
        if isinstance(module, nn.ReLU) and isinstance(output, Tensor):
            relu_nodes[module].append(output.grad_fn)

    with (
        side_effect_free(model, training=False),
        torch.enable_grad(),
        report_activation_maps({conv: ""}, on_activation),
    ):
        handle = register_module_forward_hook(on_forward)
        try:
            forward(pixels)
        finally:
            handle.remove()
    return found, relu_nodes


class _PeakResponse(nn.Module):
    """The network as captum attributes it: images (B, ...) -> maxima of the filter's map (B,).

    Attributes:
        position: of the first image's maximum, as ``row * W + column`` of the map.
        value: that maximum.
    """

    def __init__(
        self, network: nn.Module, run: Forward, traced: TracedActivation, index: int
    ) -> None:
        super().__init__()
        self.network = network  # where captum finds the ReLUs
        self.position, self.value = 0, 0.0
        self._run, self._traced, self._index = run, traced, index

    def forward(self, images: Tensor) -> Tensor:
        maxima: list[Any] = []
        calls = 0

        def on_forward(module: nn.Module, args: Any, output: Tensor) -> None:
            nonlocal calls
            if module is self._traced.module:
                if calls == self._traced.call_index:
                    maps = to_maps(self._traced.conv, output)
                    assert maps is not None  # as it was traced
                    maxima.append(maps[:, self._index].flatten(1).max(1))
                calls += 1

        handle = register_module_forward_hook(on_forward)
        try:
            self._run(images)
        finally:
            handle.remove()
        values, positions = maxima[0]
        self.position, self.value = int(positions[0]), float(values[0])
        response: Tensor = values
        return response


def attribute(
    model: nn.Module, forward: Forward, traced: TracedActivation, index: int, image: Tensor
) -> Attribution:
    """Attribute the response of filter ``index`` to ``image`` (channels, H, W).

    Runs the model without side effects.
    """
    device = next(model.parameters()).device
    pixels = _pixels(image, device)
    peak = _PeakResponse(model, forward, traced, index)
    results: list[Tensor] = []
    refusal = traced.refusal
    methods = () if refusal else load_captum_methods()
    if methods is None:
        methods, refusal = (), NO_CAPTUM
    with side_effect_free(model, training=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum warns on every call that it sets hooks
        for method in methods:
            results.append(method(peak).attribute(pixels)[0].detach())
        if not results:
            peak(pixels)
    box = traced.receptive_field.box(*divmod(peak.position, traced.map_size[1]))
    crops = [values[:, box.top : box.bottom, box.left : box.right] for values in results]
    deconvolution, guided_backpropagation = crops or (None, None)
    return Attribution(peak.value, box, deconvolution, guided_backpropagation, refusal)


def load_captum_methods() -> tuple[Any, ...] | None:
    """Import captum on first use and return both methods; None if it is not installed."""
    try:
        from captum.attr import Deconvolution, GuidedBackprop
    except ImportError:
        return None
    return Deconvolution, GuidedBackprop
