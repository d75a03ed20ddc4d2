"""Which batch norms normalize the output of one layer only, as the forwards of training show.

A network whose parameters are split among the ranks of a training cannot be traced: a forward of
one rank waits for the others. Instead, hooks observe the forwards of a training step. The autograd
graph shows what a norm receives: the output of a layer, or what functions that keep its channels
apart return for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.modules.batchnorm import _NormBase

from revacnn_lightning.telemetry.module_tree import list_named_modules
from revacnn_lightning.telemetry.unit_layers import UnitLayer, filter_count

__all__ = ["SingleLayerBatchNorms", "observe_single_layer_batch_norms"]

log = logging.getLogger(__name__)

# Backward functions of what keeps channels apart, without the number at their end. FSDP2 passes the
# inputs of its modules through a function of its own.
KEEPING_CHANNELS = {
    "AdaptiveAvgPool2DBackward", "AdaptiveMaxPool2DBackward", "AliasBackward", "AvgPool2DBackward",
    "CloneBackward", "EluBackward", "GeluBackward", "HardsigmoidBackward", "HardswishBackward",
    "HardtanhBackward", "LeakyReluBackward", "MaxPool2DWithIndicesBackward", "MishBackward",
    "RegisterPostBackwardFunctionBackward", "ReluBackward", "SigmoidBackward", "SiluBackward",
    "SoftplusBackward", "TanhBackward", "ToCopyBackward",
}  # fmt: skip


@dataclass(frozen=True)
class SingleLayerBatchNorms:
    """Which batch norms normalize the output of one layer only, in a training step.

    Attributes:
        of_layer: layer -> the batch norms that normalize its output and nothing else.
        failure: why this is unknown; "" if it is known.
    """

    of_layer: dict[str, set[str]] = field(default_factory=dict)
    failure: str = ""


@contextmanager
def observe_single_layer_batch_norms(
    model: nn.Module, on_result: Callable[[SingleLayerBatchNorms], None]
) -> Iterator[None]:
    """Observe the forwards of ``model`` inside, then call ``on_result``, unless they raise."""
    observer = _Observer(model)
    try:
        yield
    finally:
        observer.release()
    on_result(observer.result())


class _Observer:
    def __init__(self, model: nn.Module) -> None:
        self._layers: dict[Any, str] = {}  # of the autograd nodes of their outputs
        self._sources: dict[str, set[str]] = {}  # norm -> layers; "" is anything else
        self._failure = ""
        modules = dict(list_named_modules(model))
        self._widths = {n: filter_count(m) for n, m in modules.items() if isinstance(m, UnitLayer)}
        self._features = {n: m.num_features for n, m in modules.items() if isinstance(m, _NormBase)}
        # FSDP2 casts what its modules receive and return: these hooks observe what is outside.
        self._handles = [
            modules[name].register_forward_hook(self._guarded(self._note_layer, name))
            for name in self._widths
        ]
        self._handles += [
            modules[name].register_forward_pre_hook(
                self._guarded(self._note_norm, name), prepend=True
            )
            for name in self._features
        ]

    def release(self) -> None:
        for handle in self._handles:
            handle.remove()

    def result(self) -> SingleLayerBatchNorms:
        self._layers.clear()
        after: dict[str, set[str]] = {}
        if self._failure:
            return SingleLayerBatchNorms(after, self._failure)
        for norm, sources in self._sources.items():
            layer = next(iter(sources))
            if len(sources) == 1 and self._widths.get(layer) == self._features[norm]:
                after.setdefault(layer, set()).add(norm)
        return SingleLayerBatchNorms(after)

    def _guarded(self, note: Callable[[str, Any], None], name: str) -> Callable[..., None]:
        """Return a hook that passes the first input or the output of a module to ``note``."""

        def hook(module: nn.Module, args: Any, *output: Any) -> None:
            if is_compiling():
                return
            try:
                note(name, *output or args[:1])
            except Exception as error:  # a bug of this package must not stop the training
                log.warning("The norms behind the layers are unknown", exc_info=True)
                self._failure = f"internal error ({type(error).__name__}: {error})"

        return hook

    def _note_layer(self, name: str, output: Any = None) -> None:
        node = output.grad_fn if isinstance(output, Tensor) else None
        if node is not None:
            self._layers[node] = name

    def _note_norm(self, name: str, received: Any = None) -> None:
        node = received.grad_fn if isinstance(received, Tensor) else None
        self._sources.setdefault(name, set()).add(self._find_layer(node))

    def _find_layer(self, node: Any) -> str:
        """Return the layer whose output a tensor is computed from; "" if it is not that alone."""
        while node is not None and node not in self._layers:
            previous = [other for other, _ in node.next_functions if other is not None]
            if node.name().rstrip("0123456789") not in KEEPING_CHANNELS or len(previous) != 1:
                return ""
            node = previous[0]
        return self._layers.get(node, "")
