"""What an input passes on its way through a network: layers, and the modules between them.

While a forward runs, `ModuleFlow` knows of each tensor from which layers it is computed. It
observes every operation, so that plain code between modules (``out + identity``, ``torch.cat``)
breaks no connection. Tensors are recognized by their memory and none is kept alive. Memory that is
used again belongs to the result of the operation that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.inspection.dispatch_mode import NoCompileDispatchMode

__all__ = ["INPUT", "ModuleFlow", "ModuleFlowResult", "NonLayerCall"]

INPUT = ""  # stands for the input among the names of layers
MAX_PASSED = 1024  # calls of modules that are kept
MAX_INSIDE = 64  # calls inside each other that are kept
# Compositions of other modules, which are called themselves.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

Sources = frozenset[str]
NONE: Sources = frozenset()


@dataclass(frozen=True)
class NonLayerCall:
    """A call of a module without a layer in it. Shapes are those of its first input and output."""

    name: str
    module_type: str
    sources: Sources
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


@dataclass
class ModuleFlowResult:
    """What `ModuleFlow` has observed in a forward.

    Attributes:
        layer_order: the layers in the order of their first calls.
        input_readers: the layers that read the input.
        output_sources: the layers that the output is computed from; `INPUT` is the input.
        non_layer_calls: the calls of all other modules, in order.
    """

    layer_order: list[str] = field(default_factory=list)
    input_readers: list[str] = field(default_factory=list)
    output_sources: Sources = NONE
    non_layer_calls: list[NonLayerCall] = field(default_factory=list)

    def last_called(self, sources: Sources) -> str:
        """Return the layer of these that was called last; `INPUT` if there is none."""
        known = [name for name in self.layer_order if name in sources]
        return known[-1] if known else INPUT


class ModuleFlow(NoCompileDispatchMode):
    """Observes the forwards that run in this context.

    Args:
        model: the network.
        layers: the layers of interest, by name.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.result = ModuleFlowResult()
        self._layers = {module: name for name, module in layers.items()}
        self._names = {module: name for name, module in model.named_modules()}
        self._holders = _holders_of(model, layers)
        self._sources: dict[int, Sources] = {}  # by the address of the memory
        self._inside: list[tuple[nn.Module, Sources]] = []  # the calls under way
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Any:
        self._handles = [
            register_module_forward_pre_hook(self._on_call),
            register_module_forward_hook(self._on_return, always_call=True),
        ]
        return super().__enter__()  # type: ignore[no-untyped-call,unused-ignore]

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call,unused-ignore]
        for handle in self._handles:
            handle.remove()

    def mark_input(self, image: Tensor) -> Tensor:
        """Observe the forward of this image. Return the tensor to call the model with."""
        self._set([image], frozenset({INPUT}))
        return image

    def sources_of(self, tensor: Tensor) -> Sources:
        """Return the layers that a tensor of the forward is computed from; `INPUT` is the input."""
        return self._of([tensor])

    def finish(self, output: Any) -> ModuleFlowResult:
        """Return what was observed, up to this output of the model."""
        self.result.output_sources = self._of(_tensors(output))
        self._sources.clear()
        return self.result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sources = self._of(_tensors((args, kwargs)))
        result = func(*args, **kwargs)
        self._set(_tensors(result), sources)
        return result

    # ---------------------------------------------------------------- modules

    def _on_call(self, module: nn.Module, args: Any) -> None:
        if len(self._inside) < MAX_INSIDE:
            self._inside.append((module, self._of(_tensors(args))))

    def _on_return(self, module: nn.Module, args: Any, output: Any) -> None:
        """Note a call; without an output if it has raised an exception."""
        if not self._inside or self._inside[-1][0] is not module:
            return  # one of more calls inside each other than are kept
        _, sources = self._inside.pop()
        if module in self._layers:
            self._note_layer(self._layers[module], sources)
            self._set(_tensors(output), frozenset({self._layers[module]}))
        elif self._is_passed(module) and len(self.result.non_layer_calls) < MAX_PASSED:
            self._note_passed(module, sources, _tensors(args), _tensors(output))

    def _note_layer(self, name: str, sources: Sources) -> None:
        if name not in self.result.layer_order:
            self.result.layer_order.append(name)
        if INPUT in sources and name not in self.result.input_readers:
            self.result.input_readers.append(name)

    def _is_passed(self, module: nn.Module) -> bool:
        """Return whether a module is one on the way, not a composition, nor a part of one."""
        if not self._is_unit(module):
            return False
        return not any(self._is_unit(outer) for outer, _ in self._inside)

    def _is_unit(self, module: nn.Module) -> bool:
        if module in self._layers or module in self._holders or isinstance(module, nn.Identity):
            return False
        has_parts = any(True for _ in module.children())
        is_known = type(module).__module__.startswith("torch.nn.")
        is_attention = "attention" in type(module).__name__.lower()
        is_composition = has_parts and not is_known and not is_attention
        return not is_composition and not isinstance(module, CONTAINERS)

    def _note_passed(
        self,
        module: nn.Module,
        sources: Sources,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
    ) -> None:
        if not inputs or not outputs:
            return
        shapes = tuple(inputs[0].shape), tuple(outputs[0].shape)
        name = self._names.get(module, "")
        self.result.non_layer_calls.append(
            NonLayerCall(name, type(module).__name__, sources, *shapes)
        )

    # ---------------------------------------------------------------- tensors

    def _of(self, tensors: Sequence[Tensor]) -> Sources:
        found = [self._sources.get(_address(tensor), NONE) for tensor in tensors]
        return NONE.union(*found)

    def _set(self, tensors: Sequence[Tensor], sources: Sources) -> None:
        for tensor in tensors:
            address = _address(tensor)
            if address:
                self._sources[address] = sources


def _holders_of(model: nn.Module, layers: Mapping[str, nn.Module]) -> set[nn.Module]:
    """Return the modules that hold a layer."""
    found = {model}
    modules = dict(model.named_modules())
    for name in layers:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            holder = modules.get(".".join(parts[:depth]))
            if holder is not None:
                found.add(holder)
    return found


def _tensors(value: Any) -> list[Tensor]:
    return list(_iterate(value))


def _iterate(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf


def _address(tensor: Tensor) -> int:
    """Return the address of a tensor's memory; 0 if it has none of its own."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return 0
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # it wraps other tensors
        return 0
