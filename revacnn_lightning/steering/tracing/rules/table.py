"""The table of rules: aten operation -> what it does to labels."""

from __future__ import annotations

from collections.abc import Callable

from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["RULES", "Rule", "fix_inputs", "register_rule"]

Rule = Callable[[Trace, OpCall], None]
RULES: dict[str, Rule] = {}


def register_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these aten operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def fix_inputs(trace: Trace, call: OpCall) -> None:
    """Fix every channel that the call reads: the rule of operations that no rule covers."""
    for tensor in call.tensors:
        for label in trace.labels(tensor):
            trace.fix(
                label,
                f"are read by aten.{call.base} in {trace.where()}, an operation through which "
                "channels cannot be traced",
            )
