"""The cases, grouped by what is unusual about them. Importing this package fills the table."""

from benchmarks.left_alone.cases import (
    averages,
    batch_forms,
    callbacks,
    flags,
    manual,
    networks,
    optimizers,
    steps,
    tasks,
    tensors,
    tools,
)

__all__ = [
    "averages",
    "batch_forms",
    "callbacks",
    "flags",
    "manual",
    "networks",
    "optimizers",
    "steps",
    "tasks",
    "tensors",
    "tools",
]
