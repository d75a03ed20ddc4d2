"""The table of rules: aten operation -> what it does to labels."""

from __future__ import annotations

from collections.abc import Callable

from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["RULES", "Rule", "rule", "unknown"]

Rule = Callable[[Trace, OpCall], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these aten operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def unknown(trace: Trace, call: OpCall) -> None:
    for tensor in call.tensors:
        for component in trace.labels(tensor):
            trace.pin(component, f"are read by aten.{call.base} in {trace.where()}, which is "
                                  "no operation whose channels can be followed")  # fmt: skip
