"""Real forwards of the model that leave no mark on it."""

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

__all__ = [
    "ForwardFailedError",
    "ForwardProbe",
    "evaluate",
    "relative_change",
    "trace",
]


class ForwardFailedError(SteeringError):
    """The model's own forward raised on the verifying batch."""


@dataclass
class ForwardProbe:
    """Real forwards of the model, on one or two samples of the current batch.

    Each of ``forwards`` runs one and returns its output. All are traced and what they show is
    united; the output of the first is what `verify` compares before and after an edit.
    ``samples`` is how many it takes: multiply-accumulates are told of one.
    """

    forwards: Sequence[Callable[[], Any]]
    samples: int = 1


@contextmanager
def _eager() -> Iterator[None]:
    """Compiled modules run their own Python, so that a trace sees every operation."""
    # Where nothing was compiled yet, dynamo need not even be loaded.
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def run(forward: Callable[[], Any]) -> Any:
    """Run the user's forward.

    Raises:
        ForwardRaised: with what it raised, whatever that was.
    """
    try:
        with _eager():
            return forward()
    except Exception as error:  # the model's forward is anyone's code
        text = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {text[0] if text else ''}"
        raise ForwardFailedError(f"the model's forward raised {detail}") from error


def trace(
    model: nn.Module, probe: ForwardProbe, watched: Sequence[tuple[str, int, int]] = ()
) -> ChannelGroups:
    """Run every forward of the probe in training mode and unite what they show.

    A second round in evaluation mode is run only if it may show convs that the first did not.
    A model that is already training keeps the mode of each of its modules, so that batch norms
    which the user froze stay frozen.

    Raises:
        ForwardRaised: a forward raised.
    """
    with _without_collector():
        return _traced(model, probe, watched)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A trace makes many small objects and no cycles; looking for some in between costs a fifth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _traced(
    model: nn.Module, probe: ForwardProbe, watched: Sequence[tuple[str, int, int]]
) -> ChannelGroups:
    tracer = Tracer(model, watched)
    with side_effect_free(model, None if model.training else True):
        _trace_once(tracer, probe)
    if len(tracer.trace.ran) < len(tracer.trace.convs):
        with side_effect_free(model, False):
            _trace_once(tracer, probe)
    return ChannelGroups(tracer.trace, probe.samples)


def _trace_once(tracer: Tracer, probe: ForwardProbe) -> None:
    for forward in probe.forwards:
        with tracer.watching():
            tracer.trace.output(run(forward), tensors_in)


def evaluate(model: nn.Module, probe: ForwardProbe) -> list[Tensor]:
    """The floating-point outputs of the probe's first forward, in evaluation mode.

    Raises:
        ForwardRaised: the forward raised.
    """
    with side_effect_free(model, False):
        found = tensors_in(run(probe.forwards[0]))
        return [t.detach().clone() for t in found if t.is_floating_point() or t.is_complex()]


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested containers, dataclasses included."""
    found: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            found += tensors_in([getattr(leaf, each.name) for each in fields(leaf)])
    return found


def relative_change(new: Sequence[Tensor], old: Sequence[Tensor]) -> float:
    """max |new - old| / max |old| over all outputs; inf if shapes differ, nan becomes inf.

    Values that are not finite in both at the same place and equal there count as equal.
    """
    if [t.shape for t in new] != [t.shape for t in old]:
        return float("inf")
    change = scale = 0.0
    for a, b in zip(new, old, strict=True):
        if not b.numel():
            continue
        x, y = a.detach().double(), b.detach().double()
        same = (x == y) | (x.isnan() & y.isnan())
        difference = torch.where(same, 0.0, (x - y).abs())
        worst = float(difference.max())
        change = max(change, worst if worst == worst else float("inf"))
        finite = y[y.isfinite()]
        scale = max(scale, float(finite.abs().max()) if finite.numel() else 0.0)
    if change == 0.0:
        return 0.0
    return change / scale if scale > 0 else float("inf")
