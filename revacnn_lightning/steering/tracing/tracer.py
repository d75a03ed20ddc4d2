"""One real forward, watched.

The model's own Python runs, on real data, under a `TorchDispatchMode`. Every aten call is shown to
a rule (`rules/`) that carries the labels from its inputs to its outputs and notes in the `Trace`
what belongs together. An operation without a rule pins all it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from revacnn_lightning.steering.tracing.op_costs import op_cost
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules import apply_rule
from revacnn_lightning.steering.tracing.size_uses import SizeMode
from revacnn_lightning.steering.tracing.trace import Trace
from revacnn_lightning.steering.tracing.traced_int import remembering

__all__ = ["Tracer"]


class Tracer(TorchDispatchMode):
    """Fills a `Trace` with the facts of one or more forwards of ``model``.

    Use as ``with tracer.watching(): model(x)``, once per forward, then ``Channels(tracer.trace)``.
    """

    def __init__(self, model: nn.Module, watched: Iterable[tuple[str, int, int]] = ()) -> None:
        super().__init__()
        self.trace = Trace(model, watched)
        self._forwards = 0  # that were watched

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around one forward: hooks in, dispatch mode on, and all of it gone afterwards."""
        with ExitStack() as stack:
            self._forwards += 1
            stack.callback(self.trace.forget)
            for handle in (
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave, always_call=True),
            ):
                stack.callback(handle.remove)
            if stack.enter_context(remembering(self.trace.model)):
                stack.enter_context(SizeMode(self.trace))
            stack.enter_context(self)
            yield

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.trace.enter(module)

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        self.trace.leave(module, args, out)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled while tracing, so that torch need not load its compiler for us."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        base = name[:-1] if name.endswith("_") and not name.endswith("__") else name
        tensors = _tensors((*args, *kwargs.values())) if kwargs else _tensors(args)
        call = OpCall(func, name, base, args, kwargs, out, tensors, _tensors((out,)))
        self.trace.carry_sources(call)
        product = op_cost(self.trace, call) if self._forwards == 1 else None
        if product is not None:
            self.trace.products.append(product)
        apply_rule(self.trace, call)
        return out


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors of an aten call's arguments or results: in lists at most, so no pytree needed."""
    found: list[Tensor] = []
    for each in tree:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, (list, tuple)):
            found += _tensors(each)
    return found
