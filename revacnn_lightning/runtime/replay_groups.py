"""Groups of the images of a recorded step, each of which has a loss of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from revacnn_lightning.runtime.recorded_step import RecordedStep

__all__ = ["GROUP", "MIN_GROUPS", "ReplayGroup", "group_images"]

GROUP = 16  # images of a replay, at most
MIN_GROUPS = 2  # of images, so that there is a spread


@dataclass
class ReplayGroup:
    """Some images of a recorded step. ``image_count`` is 0 if their number is unknown."""

    step: RecordedStep
    constants: dict[int, Tensor]
    image_count: int
    version: int = -1


def group_images(step: RecordedStep) -> list[ReplayGroup]:
    """Return groups of the images of a step, and let it expect so many."""
    size, samples = _group_size(step), step.samples
    step.samples = size
    if size == samples:
        return [ReplayGroup(step, step.constants, size if step.batch_size else step.images)]
    groups = []
    for start in range(0, samples - size + 1, size):
        rows = slice(start, start + size)
        constants = {
            i: _rows(v, step.batches.get(i, 0), samples, rows) for i, v in step.constants.items()
        }
        groups.append(ReplayGroup(step, constants, size))
    return groups


def _group_size(step: RecordedStep) -> int:
    """Return how many images a group has: a batch has two groups at least, if it is so large.

    The groups of several batches show the spread together. In a small network, a group costs the
    same with 8 images as with 16: nearly all of it is the time of the calls.
    """
    if not step.batch_size or step.samples < MIN_GROUPS:
        return step.samples
    return step.samples // max(MIN_GROUPS, math.ceil(step.samples / GROUP))


def _rows(value: Tensor, batches: int, samples: int, rows: slice) -> Tensor:
    """Return these samples of each batch that a constant holds, as a view."""
    if not batches:
        return value
    return value.unflatten(0, (batches, samples))[:, rows].flatten(0, 1)
