"""What each operation does to channels: one rule per aten operation or family of them.

A rule reads the labels of a call's inputs and writes those of its outputs. No rule guesses: what
is not understood is pinned, and an operation that is in no table pins everything it reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules import layers as _layers  # noqa: F401 - registers its rules
from revacnn_lightning.steering.tracing.rules.elementwise import pointwise
from revacnn_lightning.steering.tracing.rules.operations import (
    COPIES,
    CREATIONS,
    NOISE,
    POINTWISE,
    REDUCTIONS,
    SILENT,
    SPATIAL,
    VIEWS,
)
from revacnn_lightning.steering.tracing.rules.reductions import reduce, spatial
from revacnn_lightning.steering.tracing.rules.table import RULES, Rule, unknown
from revacnn_lightning.steering.tracing.rules.views import view
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["apply_rule"]


def apply_rule(trace: Trace, call: OpCall) -> None:
    """Find the rule of a call and follow it."""
    base = call.base
    if base in CREATIONS:
        for out in call.outs:
            trace.mark_uniform(out)
        return
    labelled = any(trace.labels(t) for t in call.tensors)
    found = RULES.get(base)
    if not labelled:
        _without_labels(trace, call, found)
    elif found is not None:
        found(trace, call)
    elif base in COPIES:
        for out in call.outs:
            trace.label(out, list(trace.labels(call.args[0])))
    elif base in VIEWS:
        view(trace, call)
    elif base in SPATIAL:
        spatial(trace, call)
    elif base in REDUCTIONS and not _is_binary(call):
        reduce(trace, call)
    elif base in POINTWISE or torch.Tag.pointwise in call.func.tags:
        pointwise(trace, call)
    elif base not in SILENT:
        unknown(trace, call)


def _without_labels(trace: Trace, call: OpCall, found: Rule | None) -> None:
    """Noise and constants stay so under pointwise operations and copies."""
    if call.base in NOISE or (
        call.tensors
        and found is None
        and (call.base in COPIES or torch.Tag.pointwise in call.func.tags)
        and all(t.numel() == 1 or trace.is_uniform(t) for t in call.tensors)
    ):
        for out in call.outs:
            trace.mark_uniform(out)


def _is_binary(call: OpCall) -> bool:
    """max(x, y) is pointwise, max(x, dim) reduces."""
    return len(call.args) > 1 and isinstance(call.args[1], Tensor)
