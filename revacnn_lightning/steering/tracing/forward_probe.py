"""Real forwards of the model: traced, or evaluated for verification. They change nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.tracer import Tracer
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.inspection.tensor_state import TensorState

__all__ = [
    "ForwardFailedError",
    "ForwardOutput",
    "ForwardProbe",
    "evaluate",
    "run_forward",
    "trace",
]


class ForwardFailedError(SteeringError):
    """The model's own forward raised an exception.

    ``hint`` says what to do about it, as a sentence; it may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = f". {hint}" if hint else ""


@dataclass
class ForwardOutput:
    """What a forward returns if it is not one call of the model.

    Attributes:
        tensors: its output.
        fixed: other tensors whose shape must not change, each with a reason that continues "these
            filters ...".
    """

    tensors: list[Tensor]
    fixed: list[tuple[Tensor, str]]


@dataclass
class ForwardProbe:
    """Real forwards of the model on one or two samples of the current batch.

    Attributes:
        forwards: each runs one forward and returns its output. All are traced into one result; the
            output of the first is compared before and after an edit.
        samples: the batch size of the first forward; multiply-accumulates are counted per sample.
        hint: what to do if a forward raises, for the refusal.
    """

    forwards: Sequence[Callable[[], Any]]
    samples: int = 1
    hint: str = ""


def trace(
    model: nn.Module, probe: ForwardProbe, new_filters: Sequence[tuple[str, int, int]] = ()
) -> ChannelGroups:
    """Trace every forward of the probe in training mode and return the channel groups.

    If some layer was not run, a second round in evaluation mode follows. A model that is training
    keeps the mode of each of its modules, so batch norms that the user froze stay frozen.

    Args:
        new_filters: (tensor, dim, index) of new filters whose activity is recorded.

    Raises:
        ForwardFailedError: a forward raised.
    """
    tracer = Tracer(model, new_filters)
    with _paused_garbage_collection():
        with side_effect_free(model, None if model.training else True, observe=False) as tensors:
            _trace_once(tracer, probe, tensors)
        if tracer.trace.unused or len(tracer.trace.executed) < len(tracer.trace.layers):
            with side_effect_free(model, training=False, observe=False) as tensors:
                _trace_once(tracer, probe, tensors)
        return ChannelGroups(tracer.trace, probe.samples)


def _trace_once(tracer: Tracer, probe: ForwardProbe, tensors: TensorState) -> None:
    for forward in probe.forwards:
        with tracer.tracing(tensors.copy_before):
            output = run_forward(forward, probe.hint)
            if isinstance(output, ForwardOutput):
                for tensor, reason in output.fixed:
                    tracer.trace.fix_tensor(tensor, reason)
            tracer.trace.fix_outputs(output, _tensors_in)


@contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """Disable the collector, which costs a fifth: a trace creates many objects but no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def evaluate(model: nn.Module, probe: ForwardProbe) -> list[Tensor]:
    """Return the floating-point outputs of the probe's first forward, in evaluation mode.

    Raises:
        ForwardFailedError: the forward raised.
    """
    with side_effect_free(model, training=False):
        found = _tensors_in(run_forward(probe.forwards[0], probe.hint))
        return [t.detach().clone() for t in found if t.is_floating_point() or t.is_complex()]


def run_forward(forward: Callable[[], Any], hint: str = "") -> Any:
    """Return the output of the user's forward.

    Raises:
        ForwardFailedError: it raised any exception.
    """
    try:
        with _eager():
            return forward()
    except Exception as error:  # the user's code may raise anything
        text = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {text[0] if text else ''}"
        raise ForwardFailedError(f"the model's forward raised {detail}", hint) from error


@contextmanager
def _eager() -> Iterator[None]:
    """Run the Python code of compiled modules, so that a trace sees every operation."""
    # If nothing was compiled yet, dynamo need not be imported.
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def _tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested containers, dataclasses included."""
    found: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            found += _tensors_in([getattr(leaf, each.name) for each in fields(leaf)])
    return found
