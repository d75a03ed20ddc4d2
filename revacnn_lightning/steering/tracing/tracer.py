"""Traces a real forward of the model.

The model's own Python runs on real data under a `TorchDispatchMode`. Every aten call is passed to a
rule (`rules/`), which carries labels from its inputs to its outputs and records in the `Trace`
which channels are coupled. An operation without a rule fixes every channel it reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from revacnn_lightning.steering.tracing.evaluated_calls import evaluated_call
from revacnn_lightning.steering.tracing.op_costs import op_costs
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.dispatch import apply_rule
from revacnn_lightning.steering.tracing.size_uses import SizeUseMode
from revacnn_lightning.steering.tracing.trace import Trace
from revacnn_lightning.steering.tracing.traced_int import temporary_traced_ints
from revacnn_lightning.telemetry.inspection.dispatch_mode import NoCompileDispatchMode

__all__ = ["Run", "Tracer"]

# (operation, arguments, named arguments) -> its output
Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class Tracer(NoCompileDispatchMode):
    """Fills a `Trace` during one or more forwards of ``model``.

    Use ``with tracer.tracing(): model(x)`` once per forward, then ``ChannelGroups(tracer.trace)``.

    Args:
        model: the network.
        new_filters: see `Trace`.
        reads_shapes: whether sizes that the model reads from shapes are traced, which takes longer.
        evaluates: whether batch norms and dropout return what they do in evaluation, see
            `evaluated_call`. What is traced is what the model calls.
    """

    def __init__(
        self,
        model: nn.Module,
        new_filters: Iterable[tuple[str, int, int]] = (),
        *,
        reads_shapes: bool = False,
        evaluates: bool = False,
    ) -> None:
        super().__init__()
        self.trace = Trace(model, new_filters)
        self._reads_shapes = reads_shapes
        self._forwards = 0  # traced so far
        self._run: Run = _run
        self._evaluates = evaluates

    @contextmanager
    def tracing(self, run: Run | None = None) -> Iterator[None]:
        """Trace one forward. Hooks and modes are removed afterwards.

        Args:
            run: a function that runs every operation of the forward and returns its output.
        """
        self._run = run or _run
        with ExitStack() as stack:
            self._forwards += 1
            stack.callback(self.trace.release_tensors)
            for handle in (
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave, always_call=True),
            ):
                stack.callback(handle.remove)
            has_attributes = stack.enter_context(temporary_traced_ints(self.trace.model))
            if has_attributes or self._reads_shapes:
                stack.enter_context(SizeUseMode(self.trace, reads_shapes=self._reads_shapes))
            stack.enter_context(self)
            yield

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.trace.enter_module(module)

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        with torch._C.DisableTorchFunctionSubclass():
            self.trace.leave_module(module, args, out)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.trace.signature.record(func, args)
        if self._evaluates:
            out = self._run(*evaluated_call(self.trace, func, args, kwargs))
        else:
            out = self._run(func, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():  # our own calls are none of the model's
            self._record(func, args, kwargs, out)
        return out

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        name, base = _names_of(func)
        tensors = _tensors((*args, *kwargs.values())) if kwargs else _tensors(args)
        call = OpCall(func, name, base, args, kwargs, out, tensors, _tensors((out,)))
        self.trace.record_use(tensors)
        self.trace.propagate_sources(call)
        if self._forwards == 1:
            self.trace.op_costs += op_costs(self.trace, call)
        apply_rule(self.trace, call)


@functools.cache
def _names_of(func: Any) -> tuple[str, str]:
    """Return the name of an operation without its overload, and without its last ``_``."""
    name = func._schema.name.partition("::")[2]
    return name, name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _tensors(values: Any) -> list[Tensor]:
    """Return the tensors in arguments or results of an aten call, where only lists are nested."""
    found: list[Tensor] = []
    for each in values:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, (list, tuple)):
            found += _tensors(each)
    return found


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)
