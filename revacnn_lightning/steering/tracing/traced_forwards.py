"""Traces real forwards of the model. They change nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import (
    ForwardFailedError,
    ForwardProbe,
    ReplayedStepOutput,
    floating_point_copies,
    operation_runner,
    restored_model,
    run_forward,
    tensors_in,
)
from revacnn_lightning.steering.tracing.garbage_collection import paused_garbage_collection
from revacnn_lightning.steering.tracing.tracer import Tracer

__all__ = ["trace_and_evaluate", "trace_channel_groups"]

log = logging.getLogger(__name__)


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
    kind = _TraceKind(new_filters, evaluates=evaluates, expects_heads=expects_heads)
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
    kind = _TraceKind(new_filters, evaluates=True, expects_heads=expects_heads, verifies=True)
    return _trace(model, probe, kind)


class _TraceKind(NamedTuple):
    """What is traced, see `trace_channel_groups`.

    Attributes:
        evaluates: whether batch norms and dropout return what they do in evaluation.
        verifies: whether the output of the first forward verifies the edit: then its values matter,
            and the edit expects no other forward.
    """

    new_filters: Sequence[tuple[str, int, int]]
    evaluates: bool
    expects_heads: bool
    verifies: bool = False


def _trace(
    model: nn.Module, probe: ForwardProbe, kind: _TraceKind
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
    tracer: Tracer, model: nn.Module, probe: ForwardProbe, kind: _TraceKind
) -> list[Tensor]:
    output = _trace_once(tracer, model, probe, None if model.training else True, kind)
    if tracer.trace.unused or len(tracer.trace.executed) < len(tracer.trace.layers):
        _trace_once(tracer, model, probe, False, kind._replace(verifies=False))
    return output


def _trace_once(
    tracer: Tracer, model: nn.Module, probe: ForwardProbe, training: bool | None, kind: _TraceKind
) -> list[Tensor]:
    """Trace every forward of the probe once, and return the output of the first."""
    first: list[Tensor] = []
    with restored_model(model, probe, training) as tensors:
        for index, forward in enumerate(probe.forwards):
            is_exact = kind.verifies and index == 0
            run = operation_runner(probe, tensors, exact=is_exact, is_last=is_exact)
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
                tracer.trace.fix_outputs(output, tensors_in)
            if is_exact:
                first = floating_point_copies(output)
    return first
