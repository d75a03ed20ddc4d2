"""Groups logged metrics into families: ``train_acc`` and ``val/acc`` both belong to ``acc``."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "LOSS",
    "TRAINING_LOSSES",
    "group_by_family",
    "main_metric",
    "metric_family",
    "metric_phase",
    "metric_sort_key",
]

LOSS = "loss"
# Common names of the training loss, which is known without them.
TRAINING_LOSSES = frozenset({"loss", "train_loss", "train/loss", "train_loss_step", "loss_step"})
PHASES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip
# Lightning appends these to metrics logged with both on_step and on_epoch.
SUFFIXES = ("step", "epoch")


def metric_family(name: str) -> str:
    """Return a metric's name without its phase."""
    parts = [part for part in re.split(r"[/_\s.-]+", name) if part]
    kept = [part for part in parts if part.lower() not in PHASES]
    while len(kept) > 1 and kept[-1].lower() in SUFFIXES:
        kept.pop()
    return " ".join(kept) or name


def metric_phase(name: str) -> str:
    """Return ``train``, ``val`` or ``test``; "" if the name contains no phase."""
    for part in re.split(r"[/_\s.-]+", name.lower()):
        if part in PHASES:
            return PHASES[part]
    return ""


def group_by_family(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the metrics of each family. The loss is always present and first."""
    metrics: dict[str, list[str]] = {LOSS: []}
    for name in sorted(names, key=lambda name: (metric_family(name).lower(), name)):
        key = metric_family(name)
        metrics.setdefault(LOSS if key.lower() == LOSS else key, []).append(name)
    return metrics


def metric_sort_key(name: str) -> tuple[bool, bool, str]:
    """Return a sort key: validation metrics first, accuracies before other metrics."""
    lower = name.lower()
    return ("val" not in lower, "acc" not in lower, lower)


def main_metric(names: Iterable[str], chosen_family: str = LOSS) -> str:
    """Return the metric to show where there is room for one beside the loss; "" if there is none.

    Args:
        names: the names of all logged metrics.
        chosen_family: the family that the user has chosen to see.
    """
    logged = [name for name in names if name not in TRAINING_LOSSES]
    of_chosen = [
        name for name in logged if chosen_family != LOSS and metric_family(name) == chosen_family
    ]
    return min(of_chosen or logged, key=metric_sort_key, default="")
