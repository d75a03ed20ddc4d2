"""Finds the rule of an aten call and applies it."""

from __future__ import annotations

import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules import (
    attention,  # noqa: F401 - registers its rules
    convolutions,
    matrix_products,  # noqa: F401 - registers its rules
    normalizations,  # noqa: F401
    recurrent,  # noqa: F401
)
from revacnn_lightning.steering.tracing.rules.elementwise import pointwise_rule
from revacnn_lightning.steering.tracing.rules.op_families import (
    COPIES,
    CREATIONS,
    NOISE,
    POINTWISE,
    QUERIES,
    REDUCTIONS,
    SPATIAL,
    UNINITIALIZED,
    VIEWS,
)
from revacnn_lightning.steering.tracing.rules.reductions import reduction_rule, spatial_rule
from revacnn_lightning.steering.tracing.rules.table import RULES, Rule, fix_inputs
from revacnn_lightning.steering.tracing.rules.views import view_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["apply_rule"]


def apply_rule(trace: Trace, call: OpCall) -> None:
    """Apply the call's own rule, or that of its family; else fix all channels it reads."""
    base = call.base
    if base in CREATIONS:
        for out in call.outs:
            trace.mark_uniform(out)
            if base in UNINITIALIZED:
                trace.record_uninitialized(out)
        return
    # A conv from one channel to one has no labels, but it runs.
    is_labeled = any(trace.labels(t) for t in call.tensors)
    rule = RULES.get(base)
    if not is_labeled and rule is not convolutions.convolution_rule:
        _propagate_uniform(trace, call, rule)
    elif rule is not None:
        rule(trace, call)
    elif base in COPIES:
        for out in call.outs:
            trace.set_labels(out, list(trace.labels(call.args[0])))
    elif base in VIEWS:
        view_rule(trace, call)
    elif base in SPATIAL:
        spatial_rule(trace, call)
    elif base in REDUCTIONS and not _is_binary(call):
        reduction_rule(trace, call)
    elif base in POINTWISE or torch.Tag.pointwise in call.func.tags:
        pointwise_rule(trace, call)
    elif base not in QUERIES:
        fix_inputs(trace, call)


def _propagate_uniform(trace: Trace, call: OpCall, rule: Rule | None) -> None:
    """Noise and constants remain uniform under pointwise operations and copies."""
    if call.base in NOISE or (
        call.tensors
        and rule is None
        and (call.base in COPIES or torch.Tag.pointwise in call.func.tags)
        and all(t.numel() == 1 or trace.is_uniform(t) for t in call.tensors)
    ):
        for out in call.outs:
            trace.mark_uniform(out)


def _is_binary(call: OpCall) -> bool:
    """Return whether a call has two operands: max(x, y) is pointwise, max(x, dim) reduces."""
    return len(call.args) > 1 and isinstance(call.args[1], Tensor)
