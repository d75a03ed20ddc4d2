"""What the message about an opened layer holds besides images: histograms, and predictions."""

from __future__ import annotations

import numpy as np
from msgspec import Struct, field

__all__ = ["ClassScore", "Histogram", "ImagePrediction"]


class Histogram(Struct, frozen=True):
    """How the values of a layer are distributed around zero.

    ``counts`` are those of bins of equal width from ``-limit`` to ``limit``; the outer bins also
    count what lies beyond. A ``limit`` of 0 means that all values are zero. Of a large layer, an
    even sample of its values is counted. ``nonfinite`` values are in no bin.
    """

    counts: np.ndarray
    limit: float
    nonfinite: int = 0


class ClassScore(Struct, frozen=True):
    """The probability of a class, by its index among the model's outputs. ``name`` may be ""."""

    index: int
    probability: float
    name: str = ""


class ImagePrediction(Struct, frozen=True):
    """What the model makes of an image: the most probable classes, and the true one.

    ``classes`` come most probable first. ``truth`` is the class of the image in the data with the
    probability that the model gives it; None if the data does not say. ``note`` says why there are
    no ``classes``.
    """

    step: int
    version: int
    classes: list[ClassScore] = field(default_factory=list)
    truth: ClassScore | None = None
    note: str = ""
