"""What in an image excites a filter, by deconvolution and by guided backpropagation.

Deconvolution: Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks".
Guided backpropagation: Springenberg et al. 2015, "Striving for simplicity". Both go back from the
strongest response of the filter to the pixels and treat ReLUs in a way of their own, which captum
implements for ``nn.ReLU`` modules. Where the way back leads through anything else, the result would
be neither of the two: `examine` finds that out, from the autograd graph of the forward.
"""

from __future__ import annotations

import itertools
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from revacnn_lightning.telemetry.inspection.receptive_field import (
    PixelBox,
    ReceptiveField,
    path_between,
    receptive_field,
)
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.recording.activation_tracing import following
from revacnn_lightning.telemetry.statistics import Conv

__all__ = ["Attribution", "TracedActivation", "attribute", "captum_methods", "examine"]

Forward = Callable[[Tensor], Any]  # (1, channels, H, W) -> whatever the model gives

NO_CAPTUM = (
    "deconvolution and guided backpropagation are computed by captum, which is not installed where "
    "the training runs: pip install captum"
)

# Nodes of the autograd graph that bend: what they are called where people know them.
_OTHER_KINDS = {
    "Celu": "CELU",
    "Clamp": "clamp",
    "ClampMax": "clamp",
    "ClampMin": "clamp",
    "Elu": "ELU",
    "Gelu": "GELU",
    "Hardshrink": "Hardshrink",
    "Hardsigmoid": "Hardsigmoid",
    "Hardswish": "Hardswish",
    "Hardtanh": "ReLU6 or Hardtanh",
    "LeakyRelu": "LeakyReLU",
    "LogSigmoid": "LogSigmoid",
    "Mish": "Mish",
    "PreluKernel": "PReLU",
    "RreluWithNoise": "RReLU",
    "Sigmoid": "sigmoid",
    "Silu": "SiLU",
    "Softmax": "softmax",
    "Softplus": "Softplus",
    "Softshrink": "Softshrink",
    "Tanh": "tanh",
    "Threshold": "Threshold",
}


@dataclass
class TracedActivation:
    """A conv in the forward of one image.

    Attributes:
        field: the receptive fields of the units of its map.
        size: (H, W) of the map.
        module, call: whose output the map is, and of which of its calls.
        refused: why neither method can be used; "" if they can.
    """

    field: ReceptiveField
    size: tuple[int, int]
    module: nn.Module
    call: int
    refused: str = ""


@dataclass
class Attribution:
    """What of an image excites a filter.

    ``response``: the strongest of its map; ``box``: what the unit sees that gives it.
    ``deconvolution`` and ``guided`` (channels, h, w) are of the pixels of ``box``; outside of it
    both are zero. None: see ``refused``.
    """

    response: float
    box: PixelBox
    deconvolution: Tensor | None = None
    guided: Tensor | None = None
    refused: str = ""


def examine(
    model: nn.Module, forward: Forward, conv: Conv, image: Tensor
) -> TracedActivation | None:
    """Run ``forward`` on ``image`` (channels, H, W) and see how its pixels reach the conv's map.

    Leaves no trace. None: the forward of one image does not call the conv.
    """
    pixels = image.detach().to(conv.weight.device).clone().unsqueeze(0).requires_grad_()
    found: list[Any] = []
    calls: Counter[nn.Module] = Counter()
    relus: dict[nn.Module, list[Any]] = defaultdict(list)

    def saw(name: str, module: nn.Module, output: Tensor) -> None:
        # A copy, for the network may write to its own later.
        found[:] = [output.clone(), module, calls[module]]

    def count(module: nn.Module, args: Any, output: Any) -> None:
        calls[module] += 1
        if isinstance(module, nn.ReLU) and isinstance(output, Tensor):
            relus[module].append(output.grad_fn)

    with side_effect_free(model, training=False), torch.enable_grad(), following({conv: ""}, saw):
        handle = register_module_forward_hook(count)
        try:
            forward(pixels)
        finally:
            handle.remove()
    if not found:
        return None
    maps, module, call = found
    refused = _refused(path_between(maps, pixels), relus)
    return TracedActivation(receptive_field(maps, pixels), maps.shape[2:], module, call, refused)


def _refused(path: list[Any], relus: dict[nn.Module, list[Any]]) -> str:
    """Why captum would not do what its name says on this way back; "" if it would."""
    if not path:
        return "no gradient leads back from this layer to the image"
    names = {node: node.name().rstrip("0123456789").removesuffix("Backward") for node in path}
    others = sorted({_OTHER_KINDS[name] for name in names.values() if name in _OTHER_KINDS})
    if others:
        return (
            "deconvolution and guided backpropagation are defined for ReLUs; on the way to this "
            f"layer there is {', '.join(others)}"
        )
    of_modules = {node for nodes in relus.values() for node in nodes}
    if any(name == "Relu" and node not in of_modules for node, name in names.items()):
        return (
            "on the way to this layer a ReLU is a function, which captum cannot reach; with "
            "nn.ReLU modules in place of functional.relu it could"
        )
    uses = Counter(edge for node in path for edge in node.next_functions)
    if any(name == "Relu" and uses[node.next_functions[0]] > 1 for node, name in names.items()):
        return "on the way to this layer a ReLU and something else read the same map"
    on_the_way = set(path)
    for nodes in relus.values():
        taken = [node for node in nodes if node in on_the_way]
        if not all(_reaches(later, node) for node, later in itertools.pairwise(taken)):
            return (
                "on the way to this layer one nn.ReLU module serves two branches side by side, "
                "which captum cannot tell apart; with a module each it could"
            )
    return ""


def _reaches(node: Any, other: Any) -> bool:
    """Whether ``other`` lies behind ``node``, on the way back."""
    known, stack = {node}, [node]
    while stack:
        for after, _ in stack.pop().next_functions:
            if after is other:
                return True
            if after is not None and after not in known:
                known.add(after)
                stack.append(after)
    return False


class _Response(nn.Module):
    """The network as captum is shown it: from images (B, ...) to the strongest responses (B,).

    Attributes:
        place: of the response to the first image, as ``row * W + column`` of the map.
        value: that response.
    """

    def __init__(
        self, network: nn.Module, run: Forward, examined: TracedActivation, index: int
    ) -> None:
        super().__init__()
        self.network = network  # captum looks for ReLUs in here
        self.place, self.value = 0, 0.0
        self._run, self._examined, self._index = run, examined, index

    def forward(self, images: Tensor) -> Tensor:
        strongest: list[Any] = []
        calls = 0

        def catch(module: nn.Module, args: Any, output: Tensor) -> None:
            nonlocal calls
            if module is self._examined.module:
                if calls == self._examined.call:
                    strongest.append(output[:, self._index].flatten(1).max(1))
                calls += 1

        handle = register_module_forward_hook(catch)
        try:
            self._run(images)
        finally:
            handle.remove()
        values, places = strongest[0]
        self.place, self.value = int(places[0]), float(values[0])
        response: Tensor = values
        return response


def attribute(
    model: nn.Module, forward: Forward, examined: TracedActivation, index: int, image: Tensor
) -> Attribution:
    """What of ``image`` (channels, H, W) excites filter ``index``. Leaves no trace."""
    device = next(model.parameters()).device
    pixels = image.detach().to(device).clone().unsqueeze(0)
    response = _Response(model, forward, examined, index)
    found: list[Tensor] = []
    refused = examined.refused
    methods = () if refused else captum_methods()
    if methods is None:
        methods, refused = (), NO_CAPTUM
    with side_effect_free(model, training=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum tells each time that it sets hooks
        for method in methods:
            found.append(method(response).attribute(pixels)[0].detach())
        if not found:
            response(pixels)
    box = examined.field.box(*divmod(response.place, examined.size[1]))
    crops = [values[:, box.top : box.bottom, box.left : box.right] for values in found]
    deconvolution, guided = crops or (None, None)
    return Attribution(response.value, box, deconvolution, guided, refused)


def captum_methods() -> tuple[Any, ...] | None:
    """Both methods; None where captum is not installed. It is loaded here, on first need."""
    try:
        from captum.attr import Deconvolution, GuidedBackprop
    except ImportError:
        return None
    return Deconvolution, GuidedBackprop
