"""Real forwards of the model: traced, or evaluated for verification. They change nothing."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.tracing.call_signature import CallSignature
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.double_precision import DoublePrecisionMode
from revacnn_lightning.steering.tracing.forward_cache import EditForwardCache
from revacnn_lightning.steering.tracing.garbage_collection import paused_garbage_collection
from revacnn_lightning.steering.tracing.tracer import Run, Tracer
from revacnn_lightning.telemetry.inspection.dispatch_mode import NoCompileDispatchMode
from revacnn_lightning.telemetry.inspection.following_norms import SingleLayerBatchNorms
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.inspection.tensor_state import TensorState
from revacnn_lightning.telemetry.inspection.written_tensors import written_tensors

__all__ = [
    "ForwardFailedError",
    "ForwardProbe",
    "ReplayedStepOutput",
    "eager_code",
    "evaluate_first_forward",
    "run_forward",
    "trace_and_evaluate",
    "trace_channel_groups",
]


log = logging.getLogger(__name__)


class ForwardFailedError(SteeringError):
    """The model's own forward raised an exception.

    ``hint`` says what to do about it, as a sentence; it may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = f". {hint}" if hint else ""


@dataclass
class ReplayedStepOutput:
    """What a replayed step returns: a forward that is not one call of the model.

    Attributes:
        tensors: the output of the forward.
        fixed_shape_tensors: other tensors whose shape must not change, each with a reason that
            continues "these filters ...".
    """

    tensors: list[Tensor]
    fixed_shape_tensors: list[tuple[Tensor, str]]


@dataclass
class ForwardProbe:
    """Real forwards of the model on one or two samples of the current batch.

    Attributes:
        forwards: functions that run one forward each and return its output. All are traced into
            one result; the output of the first is compared before and after an edit.
        samples: the batch size of the first forward; multiply-accumulates are counted per sample.
        hint: what to do if a forward raises. It ends the message of the refusal.
        shared: the cache that the forwards of one edit share, or None if each one runs alone.
        norms: what training steps have shown of the norms behind the layers, for a model that
            cannot be run between two batches.
    """

    forwards: Sequence[Callable[[], Any]]
    samples: int = 1
    hint: str = ""
    shared: EditForwardCache | None = None
    norms: SingleLayerBatchNorms | None = None


def trace_channel_groups(
    model: nn.Module,
    probe: ForwardProbe,
    new_filters: Sequence[tuple[str, int, int]] = (),
    *,
    expects_heads: bool = False,
    as_trained: bool = False,
) -> ChannelGroups:
    """Trace every forward of the probe in training mode and return the channel groups.

    If some layer was not run, a second round in evaluation mode follows, of those forwards that can
    be run in it: a training step may not, such as that of a detector, which returns other tensors
    then. A model that is training keeps the mode of each of its modules, so batch norms that the
    user froze stay frozen. A model with attention heads is traced again with the sizes that it
    reads from shapes.

    Args:
        new_filters: (tensor, dim, index) of new filters whose activity is recorded.
        expects_heads: whether the last trace of the model has found attention heads. If it does
            so again, the model is traced only once.
        as_trained: whether the values must be those of training, although other forwards share the
            outputs of an evaluation.

    Raises:
        ForwardFailedError: a forward raised.
    """
    evaluates = probe.shared is not None and not as_trained
    kind = TraceKind(new_filters, evaluates=evaluates, expects_heads=expects_heads)
    return _trace(model, probe, kind)[0]


def trace_and_evaluate(
    model: nn.Module,
    probe: ForwardProbe,
    new_filters: Sequence[tuple[str, int, int]] = (),
    *,
    expects_heads: bool = False,
) -> tuple[ChannelGroups, list[Tensor]]:
    """Trace as `trace_channel_groups`, and return what the first forward returned, too.

    It is that of an evaluation, unless the model runs other code in evaluation mode: then the
    `CallSignature` of both differ. Call this if the edit expects no other forward.

    Raises:
        ForwardFailedError: a forward raised.
    """
    kind = TraceKind(new_filters, evaluates=True, expects_heads=expects_heads, is_last=True)
    return _trace(model, probe, kind)


class TraceKind(NamedTuple):
    """What is traced, see `trace_channel_groups`.

    Attributes:
        evaluates: whether batch norms and dropout return what they do in evaluation.
        is_last: whether the values of the first forward matter, after which the edit expects none.
    """

    new_filters: Sequence[tuple[str, int, int]]
    evaluates: bool
    expects_heads: bool
    is_last: bool = False


def _trace(
    model: nn.Module, probe: ForwardProbe, kind: TraceKind
) -> tuple[ChannelGroups, list[Tensor]]:
    """Return the channel groups, and the output of the first forward."""
    with paused_garbage_collection():
        expects_heads = reads_shapes = kind.expects_heads
        while True:
            tracer = Tracer(
                model, kind.new_filters, reads_shapes=reads_shapes, evaluates=kind.evaluates
            )
            output = _trace_modes(tracer, model, probe, kind)
            if tracer.trace.has_heads == reads_shapes or (reads_shapes and not expects_heads):
                return ChannelGroups(tracer.trace, probe.samples), output
            reads_shapes, expects_heads = not reads_shapes, False


def _trace_modes(
    tracer: Tracer, model: nn.Module, probe: ForwardProbe, kind: TraceKind
) -> list[Tensor]:
    output = _trace_once(tracer, model, probe, None if model.training else True, kind)
    if tracer.trace.unused or len(tracer.trace.executed) < len(tracer.trace.layers):
        _trace_once(tracer, model, probe, False, kind._replace(is_last=False))
    return output


def _trace_once(
    tracer: Tracer, model: nn.Module, probe: ForwardProbe, training: bool | None, kind: TraceKind
) -> list[Tensor]:
    """Trace every forward of the probe once, and return the output of the first."""
    first: list[Tensor] = []
    with _restored(model, probe, training) as tensors:
        for index, forward in enumerate(probe.forwards):
            is_exact = kind.is_last and index == 0
            run = _runner(probe, tensors, exact=is_exact, is_last=is_exact)
            with tracer.tracing(run):
                try:
                    output = run_forward(forward, probe.hint)
                except ForwardFailedError:
                    if training is not False or index == 0:
                        raise
                    log.debug("A forward does not run in evaluation mode", exc_info=True)
                    continue
                tracer.trace.signature.finish()
                if isinstance(output, ReplayedStepOutput):
                    for tensor, reason in output.fixed_shape_tensors:
                        tracer.trace.fix_tensor(tensor, reason)
                tracer.trace.fix_outputs(output, _tensors_in)
            if is_exact:
                first = _floating_point_copies(output)
    return first


def _restored(
    model: nn.Module, probe: ForwardProbe, training: bool | None
) -> AbstractContextManager[TensorState]:
    """Restore the model after forwards inside, whose operations `_runner` runs."""
    objects = None if probe.shared is None else probe.shared.objects_of(model)
    return side_effect_free(model, training, observe=False, objects=objects)


def _runner(
    probe: ForwardProbe, tensors: TensorState, *, exact: bool, is_last: bool = False
) -> Run:
    """Return what runs the operations of the next forward.

    Args:
        exact: whether the values that the forward computes matter, see `CallOutputCache`.
        is_last: whether no other forward of the edit follows.
    """
    outputs = None if probe.shared is None else probe.shared.outputs
    if outputs is not None:
        outputs.begin(exact=exact, is_last=is_last)

    def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        written = written_tensors(func, args, kwargs)
        for tensor in written:
            tensors.copy_before_write(tensor)
        if outputs is None:
            return func(*args, **kwargs)
        return outputs.run(func, args, kwargs, written)

    return run


class _Observed(NoCompileDispatchMode):
    """Runs every operation inside by a function, and records it in a signature if there is one."""

    def __init__(self, run: Run, signature: CallSignature | None) -> None:
        super().__init__()
        self._run = run
        self._signature = signature

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self._signature is not None:
            self._signature.record(func, args)
        return self._run(func, args, kwargs or {})


def evaluate_first_forward(
    model: nn.Module,
    probe: ForwardProbe,
    *,
    double: bool = False,
    noise: float = 0.0,
    is_last: bool = False,
) -> list[Tensor]:
    """Return the floating-point outputs of the probe's first forward, in evaluation mode.

    Args:
        double: compute in double precision, whatever types the model computes in.
        noise: relative error of the weights and images then, as in `DoublePrecisionMode`.
        is_last: whether no other forward of the edit follows: then its outputs are not kept.

    Raises:
        ForwardFailedError: the forward raised.
    """
    with ExitStack() as stack:
        tensors = stack.enter_context(_restored(model, probe, training=False))
        signature: CallSignature | None = None
        if not tensors.are_all_copied:  # of compiled code, no operation is observed
            alone = replace(probe, shared=None) if double else probe  # nothing else is double
            run = _runner(alone, tensors, exact=True, is_last=is_last)
            if probe.shared is not None:
                signature = probe.shared.new_signature()
            stack.enter_context(_Observed(run, signature))
        if double:
            stack.enter_context(DoublePrecisionMode(noise))
        output = run_forward(probe.forwards[0], probe.hint)
        if probe.shared is not None:
            probe.shared.evaluated_signature = None if signature is None else signature.value
        return _floating_point_copies(output)


def run_forward(forward: Callable[[], Any], hint: str = "") -> Any:
    """Return the output of the user's forward.

    Raises:
        ForwardFailedError: it raised any exception.
    """
    try:
        with eager_code():
            return forward()
    except Exception as error:  # the user's code may raise anything
        text = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {text[0] if text else ''}"
        raise ForwardFailedError(f"the model's forward raised {detail}", hint) from error


@contextmanager
def eager_code() -> Iterator[None]:
    """Run the Python code of compiled modules: a trace sees all of it, and nothing is compiled."""
    # If nothing was compiled yet, dynamo need not be imported.
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def _floating_point_copies(output: Any) -> list[Tensor]:
    """Return copies of the tensors of floating or complex numbers in an output of a forward."""
    found = _tensors_in(output)
    return [t.detach().clone() for t in found if t.is_floating_point() or t.is_complex()]


def _tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested containers, dataclasses included."""
    found: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            found += _tensors_in([getattr(leaf, each.name) for each in fields(leaf)])
    return found
