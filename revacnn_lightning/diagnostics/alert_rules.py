"""When something goes wrong in a training: rules on the loss, the metrics and the dead filters.

Each rule is a small object or function of numbers. A healthy training, however noisy, raises none.
"""

from __future__ import annotations

import math
import re
from collections import deque
from statistics import median

import numpy as np

__all__ = [
    "DivergingLossDetector",
    "NonfiniteLossDetector",
    "StalledMetricDetector",
    "find_dead_layers",
    "metric_direction",
]

WINDOW = 20  # recorded batches whose median is the level of the loss
LOST_SHARE = 0.5  # of the progress of a loss, beyond which it diverges
NOISE_WIDTHS = 10  # by which a diverging loss exceeds its usual noise
PATIENCE = 20  # validations without an improvement, if these are at least half of all
MIN_IMPROVEMENT = 0.002  # of the range of a metric so far
RECOVERED = 20  # finite losses after which another one that is not finite is news
LOSS_NAMES = re.compile(r"loss|error|perplexity|\b(mse|mae|rmse|nll|cer|wer)\b")
SCORE_NAMES = re.compile(r"acc|f1|auc|auroc|precision|recall|iou|dice|map\b|psnr|ssim|top\d")


class NonfiniteLossDetector:
    """Detects that the loss becomes NaN or infinite."""

    def __init__(self) -> None:
        self._n_finite = RECOVERED

    def detect(self, loss: float) -> bool:
        """Return whether this loss is the first that is not finite, after finite ones."""
        if math.isfinite(loss):
            self._n_finite += 1
            return False
        is_news = self._n_finite >= RECOVERED
        self._n_finite = 0
        return is_news


class DivergingLossDetector:
    """Detects that the loss rises far above its best level and stays there.

    The level is the median of `WINDOW` batches, so that single outliers do not count. The loss
    diverges if it has lost half of its progress since the first batches, has at least doubled, and
    exceeds its noise by far.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._first: float | None = None
        self._best = math.inf
        self._noise = 0.0
        self._has_diverged = False

    def detect(self, loss: float) -> bool:
        """Return whether the loss begins to diverge at this batch."""
        if math.isfinite(loss):
            self._recent.append(loss)
        if len(self._recent) < WINDOW:
            return False
        level = median(self._recent)
        if self._first is None:
            self._first = level
        if level < self._best:
            self._best = level
            self._noise = median([abs(value - level) for value in self._recent])
        before, self._has_diverged = self._has_diverged, level > self.threshold()
        return self._has_diverged and not before

    def threshold(self) -> float:
        """Return the level above which the loss diverges."""
        progress = (self._first or self._best) - self._best
        margins = (LOST_SHARE * progress, abs(self._best), NOISE_WIDTHS * self._noise)
        return self._best + max(margins)


class StalledMetricDetector:
    """Detects that a validation metric has not improved for `PATIENCE` validations and half of all.

    Args:
        sign: 1 if the metric should rise, -1 if it should fall.
    """

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._best = -math.inf
        self._worst = math.inf
        self._last: float | None = None
        self._n_values = self._n_without = 0
        self._has_stalled = False

    def detect(self, value: float) -> bool:
        """Return whether the metric stalls with this value. A value is added once."""
        if value == self._last or not math.isfinite(value):
            return False
        self._last = value
        self._n_values += 1
        signed = self._sign * value
        self._worst = min(self._worst, signed)
        spread = 0.0 if math.isinf(self._best) else self._best - self._worst
        if signed > self._best + MIN_IMPROVEMENT * spread:
            self._best, self._n_without, self._has_stalled = signed, 0, False
            return False
        self._n_without += 1
        before = self._has_stalled
        self._has_stalled = self._n_without >= max(PATIENCE, self._n_values / 2)
        return self._has_stalled and not before


def metric_direction(metric_name: str) -> int:
    """Return 1 if a validation metric should rise, -1 if it should fall, 0 if that is unknown."""
    lower = metric_name.lower()
    if re.search(r"(^|[^a-z])(val|valid|validation)([^a-z]|$)", lower) is None:
        return 0
    if LOSS_NAMES.search(lower):
        return -1
    return 1 if SCORE_NAMES.search(lower) else 0


def find_dead_layers(dead_mask: np.ndarray, layer_offsets: np.ndarray) -> list[int]:
    """Return the indices of the layers whose filters are all dead.

    Args:
        dead_mask: which filters are dead, bool (filters,).
        layer_offsets: index of each layer's first filter, (layers + 1,).
    """
    counts = np.concatenate([[0], np.cumsum(dead_mask)])
    widths, dead_counts = np.diff(layer_offsets), np.diff(counts[layer_offsets])
    return [int(i) for i in np.flatnonzero((widths > 0) & (dead_counts == widths))]
