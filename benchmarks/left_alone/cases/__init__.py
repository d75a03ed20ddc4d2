"""The cases, grouped by what is unusual about them. Importing this package fills the table."""

from benchmarks.left_alone.cases import (
    architectures,
    attributes,
    averages,
    batch_forms,
    callbacks,
    channels,
    flags,
    interventions,
    manual,
    networks,
    objectives,
    optimizers,
    steps,
    tasks,
    tensors,
    tools,
)

__all__ = [
    "architectures",
    "attributes",
    "averages",
    "batch_forms",
    "callbacks",
    "channels",
    "flags",
    "interventions",
    "manual",
    "networks",
    "objectives",
    "optimizers",
    "steps",
    "tasks",
    "tensors",
    "tools",
]
