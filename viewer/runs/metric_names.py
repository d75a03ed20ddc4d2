"""What a module logs, sorted into families: ``train_acc`` and ``val/acc`` are both ``acc``."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["LOSS", "families", "family", "phase"]

LOSS = "loss"
PHASES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip
# Lightning adds these to what is logged on every step and also over the epoch.
SUFFIXES = ("step", "epoch")


def family(name: str) -> str:
    """The name without the phase it was logged in."""
    parts = [part for part in re.split(r"[/_\s.-]+", name) if part]
    kept = [part for part in parts if part.lower() not in PHASES]
    while len(kept) > 1 and kept[-1].lower() in SUFFIXES:
        kept.pop()
    return " ".join(kept) or name


def phase(name: str) -> str:
    """``train``, ``val``, ``test``, or "" if the name does not tell."""
    for part in re.split(r"[/_\s.-]+", name.lower()):
        if part in PHASES:
            return PHASES[part]
    return ""


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """Family -> its metrics; the loss first, which is always there, the others by name."""
    found: dict[str, list[str]] = {LOSS: []}
    for name in sorted(names, key=lambda name: (family(name).lower(), name)):
        key = family(name)
        found.setdefault(LOSS if key.lower() == LOSS else key, []).append(name)
    return found
