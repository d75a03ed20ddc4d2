"""A layer and everything recorded of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from revacnn_lightning.telemetry.layer_selection import LayerSelection
from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums
from revacnn_lightning.telemetry.recording.computed_weights import computed_weight
from revacnn_lightning.telemetry.recording.split_weights import is_split
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums
from revacnn_lightning.telemetry.split_tensors import find_fsdp_modules
from revacnn_lightning.telemetry.unit_layers import UnitLayer, filter_count, is_forward_called

__all__ = ["ObservedLayer", "is_current", "observe_weight", "reset_selected_layers"]


@dataclass(eq=False)
class ObservedLayer:
    """A layer and everything recorded of it.

    Attributes:
        conv: the module, a convolution or a linear layer.
        name: its qualified name in the model.
        width: how many filters it has.
        model_index: its position among the layers in the order of ``named_modules``.
        weights: sums over its weight and gradients.
        conv_sums: sums over its own output.
        nonlinearity_sums: sums over the output of the non-linearity that follows.
        input_shape: (C, H, W) of the map that a linear layer reads flattened; () if it is no map.
        source: the module whose output is the activation map; None before the first discovery.
        columns: its filters in the `FlatBuffer`.
        was_called: whether a forward has called it yet.
        forward_rank: its position in the forward order; -1 if unknown.
        is_compiled: whether it runs in a compiled region, where no hook is called.
        call_index: its first call in a discovery batch, counted over all layers; -1: not called.
        nonlinearity: the non-linearity that follows it in a discovery batch.
        preactivation_modules: modules whose output that non-linearity receives.
        expected_maps: how many maps the non-linearity should have received in this batch.
    """

    conv: UnitLayer
    weights: WeightSums
    conv_sums: ActivationSums
    nonlinearity_sums: ActivationSums
    name: str = ""
    width: int = 0
    model_index: int = 0
    input_shape: tuple[int, ...] = ()
    source: nn.Module | None = None
    columns: slice = field(default_factory=lambda: slice(0, 0))
    was_called: bool = False
    forward_rank: int = -1
    is_compiled: bool = False
    call_index: int = -1
    nonlinearity: nn.Module | None = None
    preactivation_modules: set[nn.Module] = field(default_factory=set)
    expected_maps: int = 0

    @classmethod
    def of(cls, conv: UnitLayer) -> ObservedLayer:
        """Return a layer without recorded values."""
        # A conv's own output has both signs; a non-linearity's output is mostly positive.
        own, passed_on = ActivationSums(absolute=True), ActivationSums(absolute=False)
        return cls(conv, WeightSums(conv), own, passed_on)

    @property
    def is_observed(self) -> bool:
        """Whether hooks receive what it returns."""
        return not self.is_compiled and is_forward_called(self.conv)

    @property
    def map_sums(self) -> ActivationSums:
        """The sums over the activation map."""
        return self.nonlinearity_sums if self.source not in (None, self.conv) else self.conv_sums

    def begin_batch(self) -> None:
        """Discard the sums of the previous batch."""
        self.call_index, self.expected_maps = -1, 0
        self.conv_sums.reset()
        self.nonlinearity_sums.reset()

    def reset(self) -> None:
        """Discard everything that an edit of the network invalidates."""
        self.source = self.nonlinearity = None
        self.preactivation_modules = set()
        self.is_compiled = False
        self.weights.reset()
        self.begin_batch()


def observe_weight(layer: ObservedLayer, module: nn.Module, output: Any) -> None:
    """Receive the weight that a call of the layer's `weight_computing_module` has computed."""
    weight = computed_weight(layer.conv, module, output)
    if weight is not None:
        layer.weights.observe(weight)


def reset_selected_layers(
    model: nn.Module, selection: LayerSelection, known_layers: Iterable[ObservedLayer]
) -> list[ObservedLayer]:
    """Return the selected layers of the model, in the order of the model, all of them reset.

    Those of ``known_layers`` whose module is still there are used again. A module that is shared by
    several others has one layer.
    """
    layer_of = {layer.conv: layer for layer in known_layers}
    layers: list[ObservedLayer] = []
    split = find_fsdp_modules(model)
    for name, conv in selection.select(model):
        layer = layer_of.get(conv) or ObservedLayer.of(conv)
        layer.name, layer.width, layer.model_index = name, filter_count(conv), len(layers)
        layer.weights.is_split = conv in split or is_split(conv)
        layer.reset()
        layers.append(layer)
    return layers


def is_current(
    model: nn.Module, selection: LayerSelection, layers: Sequence[ObservedLayer]
) -> bool:
    """Return whether ``layers`` are the selected layers of the model, with their present widths."""
    selected = dict(selection.select(model))
    observed = {layer.name: layer.conv for layer in layers}
    return selected == observed and all(each.width == filter_count(each.conv) for each in layers)
