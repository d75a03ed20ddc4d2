"""Attribution of a filter's strongest response to the values of an input.

The input is an image, a signal or a volume; its values are called pixels.

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
from revacnn_lightning.telemetry.inspection.attribution_support import why_graph_unsupported
from revacnn_lightning.telemetry.inspection.autograd_graph import backward_path
from revacnn_lightning.telemetry.inspection.receptive_field import (
    PixelBox,
    ReceptiveFields,
    as_volume,
    compute_receptive_fields,
)
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.recording.following_nonlinearity import report_activation_maps
from revacnn_lightning.telemetry.unit_layers import UnitLayer, kernel_size, to_maps

__all__ = [
    "Attribution",
    "TracedActivation",
    "attribute_filter_response",
    "load_captum_methods",
    "trace_activation",
]

Forward = Callable[[Tensor], Any]  # (1, channels, ...) -> whatever the model returns

NO_CAPTUM = (
    "deconvolution and guided backpropagation need captum where the training runs: "
    "pip install 'revacnn-lightning[inspect]'"
)


@dataclass
class TracedActivation:
    """A layer's activation map in the forward of one input.

    Attributes:
        conv: the layer.
        receptive_field: receptive field of the map's units; the whole input if it is unknown.
        has_receptive_field: whether it is known: the dimensions of the map are traced to those of
            an input that has as many. A single unit depends on the whole input.
        map_size: (H, W) of the maps, as `to_maps` returns them.
        module: whose output the map is.
        call_index: which of the module's calls returns it, from 0.
        refusal: why neither method applies; "" if both do.
        map_depth: D of the map of a 3D convolution, whose maps have D times as many rows; else 1.
    """

    conv: UnitLayer
    receptive_field: ReceptiveFields
    has_receptive_field: bool
    map_size: tuple[int, int]
    module: nn.Module
    call_index: int
    refusal: str = ""
    map_depth: int = 1

    @property
    def middle(self) -> tuple[int, int]:
        """Row and column, in maps, of the unit in the middle of the map."""
        height, width = self.map_size[0] // self.map_depth, self.map_size[1]
        return self.map_depth // 2 * height + height // 2, width // 2

    def box(self, row: int, column: int) -> PixelBox:
        """Return the receptive field of the unit in this row and column of maps."""
        part, row = divmod(row, self.map_size[0] // self.map_depth)
        return self.receptive_field.box(row, column, part)


@dataclass
class Attribution:
    """What in an input activates a filter.

    Attributes:
        response: the maximum of the filter's map.
        box: the receptive field of that maximum.
        deconvolution: attribution (channels, d, h, w) of the pixels of ``box``; outside it is zero.
            None if refused.
        guided_backpropagation: the same by guided backpropagation.
        refusal: why there are no attributions; "" if there are.
        response_map: (H, W), the filter's map as `to_maps` returns it.
    """

    response: float
    box: PixelBox
    deconvolution: Tensor | None = None
    guided_backpropagation: Tensor | None = None
    refusal: str = ""
    response_map: Tensor | None = None


def trace_activation(
    model: nn.Module, forward: Forward, conv: UnitLayer, image: Tensor
) -> TracedActivation | None:
    """Trace the layer's map in a forward of one input, without side effects.

    Args:
        model: the network.
        forward: runs it on a batch of one input.
        conv: the layer.
        image: the input: an image (channels, H, W), a signal (channels, L) or a volume (channels,
            D, H, W).

    Returns:
        None if the forward of one input does not call the conv.
    """
    pixels = _pixels(image, device_of(conv)).requires_grad_()
    found, relu_nodes = _run_traced(model, forward, conv, pixels)
    if not found:
        return None
    output, module, call_index = found
    maps = to_maps(conv, output)
    assert maps is not None  # as it was found
    dimensions = len(kernel_size(conv))
    depth = output.shape[-3] if dimensions == 3 else 1
    is_traced = dimensions == image.dim() - 1
    # Reading the graph runs a part of the network again that uses activation checkpointing.
    with side_effect_free(model, training=False):
        refusal = why_graph_unsupported(backward_path(maps, pixels), relu_nodes)
        field = compute_receptive_fields(output, pixels) if is_traced else None
    if field is None:
        units = (depth, maps.shape[2] // depth, maps.shape[3])
        field = ReceptiveFields.of_whole_input(units, as_volume(image).shape[1:])
    has_field = is_traced or maps.shape[2:] == (1, 1)
    size = maps.shape[2], maps.shape[3]
    return TracedActivation(conv, field, has_field, size, module, call_index, refusal, depth)


def _pixels(image: Tensor, device: torch.device) -> Tensor:
    """Return a batch of one input (channels, ...), of floating-point values."""
    pixels = image.detach().to(device).clone().unsqueeze(0)
    return pixels if pixels.is_floating_point() else pixels.float()


def _run_traced(
    model: nn.Module, forward: Forward, conv: UnitLayer, pixels: Tensor
) -> tuple[list[Any], dict[nn.Module, list[Any]]]:
    """Return [output, module, call index] of the conv, and the autograd nodes of each ReLU module.

    The output is that of the conv or of the non-linearity behind it.
    """
    found: list[Any] = []
    calls: Counter[nn.Module] = Counter()
    relu_nodes: dict[nn.Module, list[Any]] = defaultdict(list)

    def on_activation(name: str, module: nn.Module, output: Tensor) -> None:
        if to_maps(conv, output) is not None:
            # A copy: the network may overwrite its own tensor later.
            found[:] = [output.clone(), module, calls[module]]

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
        position: position of the first image's maximum, as ``row * W + column`` of the map.
        value: that maximum.
        response_map: the first image's map of the filter, (H, W).
    """

    def __init__(
        self, network: nn.Module, run: Forward, traced: TracedActivation, index: int
    ) -> None:
        super().__init__()
        self.network = network  # where captum finds the ReLUs
        self.position, self.value = 0, 0.0
        self.response_map: Tensor | None = None
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
                    self.response_map = maps[0, self._index].detach().clone()
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


def attribute_filter_response(
    model: nn.Module, forward: Forward, traced: TracedActivation, index: int, image: Tensor
) -> Attribution:
    """Attribute the response of filter ``index`` to an input, as `trace_activation` takes it.

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
    box = traced.box(*divmod(peak.position, traced.map_size[1]))
    crops = [box.crop(as_volume(values)) for values in results]
    deconvolution, guided = crops or (None, None)
    return Attribution(peak.value, box, deconvolution, guided, refusal, peak.response_map)


def load_captum_methods() -> tuple[Any, ...] | None:
    """Import captum on first use and return both methods; None if it is not installed."""
    try:
        from captum.attr import Deconvolution, GuidedBackprop
    except ImportError:
        return None
    return Deconvolution, GuidedBackprop
