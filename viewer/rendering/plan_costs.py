"""What a plan changes in the size of the network, in words."""

from __future__ import annotations

from revacnn_lightning.protocol.messages import PlanSummary

from .formatting import format_count, format_relative_change, format_si

__all__ = ["format_network_size_before_after", "format_network_size_change"]


def format_network_size_before_after(plan: PlanSummary) -> str:
    """Return the parameters and multiply-accumulates before and after the edit."""
    figures = (
        ("parameters", plan.parameters_before, plan.parameters_after, format_count),
        ("multiply-accumulates", plan.macs_before, plan.macs_after, format_si),
    )
    texts = []
    for name, before, after, format_value in figures:
        if before and before != after:
            change = format_relative_change((after - before) / before)
            texts.append(f"{format_value(before)} → {format_value(after)} {name} ({change})")
        elif before:
            texts.append(f"{format_value(before)} {name}, unchanged")
    return " · ".join(texts)


def format_network_size_change(plan: PlanSummary) -> str:
    """Return for example ``−2.5 % parameters, −3.1 % MACs``: how far an edit changes them."""
    figures = (
        ("parameters", plan.parameters_before, plan.parameters_after),
        ("MACs", plan.macs_before, plan.macs_after),
    )
    changed = [
        f"{format_relative_change((after - before) / before)} {name}"
        for name, before, after in figures
        if before and before != after
    ]
    is_known = plan.parameters_before or plan.macs_before
    return ", ".join(changed) if changed or not is_known else "size unchanged"
