"""Real forwards of the model, evaluated for verification. They change nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.tracing.call_signature import CallSignature
from revacnn_lightning.steering.tracing.double_precision import DoublePrecisionMode
from revacnn_lightning.steering.tracing.forward_cache import EditForwardCache
from revacnn_lightning.steering.tracing.tracer import Run
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
    "floating_point_copies",
    "operation_runner",
    "restored_model",
    "run_forward",
    "tensors_in",
]


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


def restored_model(
    model: nn.Module, probe: ForwardProbe, training: bool | None
) -> AbstractContextManager[TensorState]:
    """Restore the model after forwards inside, whose operations `operation_runner` runs."""
    objects = None if probe.shared is None else probe.shared.objects_of(model)
    return side_effect_free(model, training, observe=False, objects=objects)


def operation_runner(
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
        tensors = stack.enter_context(restored_model(model, probe, training=False))
        signature: CallSignature | None = None
        if not tensors.are_all_copied:  # of compiled code, no operation is observed
            alone = replace(probe, shared=None) if double else probe  # nothing else is double
            run = operation_runner(alone, tensors, exact=True, is_last=is_last)
            if probe.shared is not None:
                signature = probe.shared.new_signature()
            stack.enter_context(_Observed(run, signature))
        if double:
            stack.enter_context(DoublePrecisionMode(noise))
        output = run_forward(probe.forwards[0], probe.hint)
        if probe.shared is not None:
            probe.shared.evaluated_signature = None if signature is None else signature.value
        return floating_point_copies(output)


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


def floating_point_copies(output: Any) -> list[Tensor]:
    """Return copies of the tensors of floating or complex numbers in an output of a forward."""
    found = tensors_in(output)
    return [t.detach().clone() for t in found if t.is_floating_point() or t.is_complex()]


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested containers, dataclasses included."""
    found: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            found += tensors_in([getattr(leaf, each.name) for each in fields(leaf)])
    return found
