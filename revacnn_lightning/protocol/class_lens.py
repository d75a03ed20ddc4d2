"""Which classes filters answer to, and whose gradients pull them apart."""

from __future__ import annotations

import numpy as np
from msgspec import Struct, field

__all__ = ["ClassAnswers", "ClassLens", "Confusion"]


class ClassLens(Struct, frozen=True, tag="class_lens"):
    """How the C filters of a layer of structure ``version`` respond to K classes.

    Each training image of the last ``batches`` adds two values per filter: the mean a of its
    activation map over the pixels, and the sum of ∂L/∂a over them. ``activation`` and ``gradient``
    are the means of both over the images of each class. An image weighs half as much after 100
    batches, and ``counts`` are the sums of these weights. ``classes`` are the classes that occur:
    at most 128, those with the most images. ``gradient`` is NaN where none has arrived, as behind
    frozen layers.

    Before the first image with a class, K is 0. If the training has no classes, ``note`` says why.
    """

    run: str
    version: int
    step: int
    layer: str
    classes: list[int]
    names: list[str]  # of these classes; "" if unknown
    counts: np.ndarray  # float32 (K,)
    activation: np.ndarray  # float32 (C, K), mean of each class
    gradient: np.ndarray  # float32 (C, K), mean of each class
    mean: np.ndarray  # float32 (C,), of the activation over all images
    deviation: np.ndarray  # float32 (C,), the standard deviation of it
    gradient_scale: np.ndarray  # float32 (C,), root mean square of the gradient over all images
    batches: int = 0
    note: str = ""

    def effects(self) -> np.ndarray:
        """Return the effect of each class on each filter's activation, (C, K).

        It is the mean activation on the class minus the mean on all images, in standard deviations
        over the images. A filter with the same activation on all images has 0.
        """
        return _divided(self.activation - self.mean[:, None], self.deviation[:, None])

    def pulls(self) -> np.ndarray:
        """Return how strongly each class pulls each filter's activation up, (C, K).

        It is the mean of -∂L/∂a over the images of the class, divided by the root mean square over
        all images. Training increases the activation on a class with a positive pull. NaN is
        unknown.
        """
        return _divided(-self.gradient, self.gradient_scale[:, None])

    def selectivity(self) -> np.ndarray:
        """Return how much of each filter's variance between images the classes explain, (C,).

        It is from 0 to 1.
        It is ε² (Kelley 1935), the correlation ratio η² without its bias in few images.
        """
        images, classes = float(self.counts.sum()), len(self.classes)
        if images <= classes or classes < 2:
            return np.zeros(len(self.mean), np.float32)
        between = ((self.activation - self.mean[:, None]) ** 2 @ self.counts) / images
        explained = _divided(between, self.deviation**2)
        unbiased = 1 - (1 - explained) * (images - 1) / (images - classes)
        return np.clip(unbiased, 0, 1).astype(np.float32)

    def conflict(self) -> np.ndarray:
        """Return how far the gradients of the classes cancel each other in each filter, (C,).

        It is 1 - |Σ g| / Σ |g| over the classes: 0 if all pull the filter in the same direction, 1
        if nothing is left of them. Compare "Gradient surgery" (Yu et al. 2020, arXiv:2001.06782).
        """
        gradient = np.nan_to_num(self.gradient) * self.counts
        total = np.abs(gradient).sum(1)
        return np.where(total > 0, 1 - _divided(np.abs(gradient.sum(1)), total), 0)

    def strongest(self) -> list[int]:
        """Return the class with the largest effect on each filter, of those in ``classes``."""
        if not self.classes:
            return []
        return [self.classes[column] for column in self.effects().argmax(1)]


class ClassAnswers(Struct, frozen=True, tag="class_answers"):
    """How much each filter of structure ``version`` responds to one class.

    ``effects`` (N,) is the mean activation on the class minus the mean on all images, in standard
    deviations over the images; NaN is unknown. ``images`` is the weight of the images of the class.
    """

    run: str
    version: int
    step: int
    class_index: int
    effects: np.ndarray  # float32 (N,)
    images: float = 0.0
    names: list[str] = field(default_factory=list)  # of all classes; empty if unknown
    classes: int = 0  # how many there are, as far as known
    note: str = ""  # why there are no classes


class Confusion(Struct, frozen=True, tag="confusion"):
    """How many images of each class of the validation data were taken for which class.

    It is sent after a validation during which a viewer showed classes. ``counts[i, j]`` is the
    number of images of class i whose highest score was that of class j, with the network of
    structure ``version`` as it was at ``step``. Without counts, ``note`` says why.
    """

    run: str
    version: int
    step: int
    counts: np.ndarray  # float32 (K, K)
    names: list[str]  # of all classes; "" if unknown
    note: str = ""

    def accuracy(self) -> float:
        """Return the share of the images that were taken for their own class; NaN without any."""
        total = float(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else float("nan")


def _divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return a quotient; 0 where the divisor is 0, and NaN where the dividend is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(by > 0, values / by, values * 0).astype(np.float32)
