"""UMAP (McInnes, Healy and Melville, 2018), started from scratch or from the previous embedding.

umap-learn scales its initialization to the square [0, 10]², so all embeddings fill that square.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from .pca import principal_components
from .placement import jitter

__all__ = ["scale_to_square", "umap", "umap_warm_start"]

log = logging.getLogger(__name__)

MAX_NEIGHBORS = 15
EPOCHS, EPOCHS_WARM_START = 200, 30
# Learning rate of a warm start: so small that the embedding keeps its shape.
MIN_RATE, RATE_PER_CHANGE, MAX_RATE = 0.005, 0.1, 0.04

Array = np.ndarray


def umap(data: Array, seed: int) -> Array:
    """Return the embedding (n, 2) of ``data`` (n, d), computed from scratch."""
    initial = scale_to_square(jitter(principal_components(data), seed))
    return _fit(data, initial, seed, n_epochs=EPOCHS)


def umap_warm_start(data: Array, previous: Array, data_change: float, seed: int) -> Array:
    """Return the embedding (n, 2) of ``data`` (n, d), started from ``previous`` (n, 2).

    Args:
        data_change: how far the data have changed since ``previous``.
    """
    rate = min(MAX_RATE, MIN_RATE + RATE_PER_CHANGE * data_change)
    points = _fit(
        data, scale_to_square(previous), seed, n_epochs=EPOCHS_WARM_START, learning_rate=rate
    )
    return scale_to_square(points)


def scale_to_square(points: Array) -> Array:
    """Return ``points`` (n, 2) scaled to [0, 10]², each axis independently."""
    extent = np.ptp(points, axis=0)
    return 10 * (points - points.min(axis=0)) / np.where(extent > 0, extent, 1.0)


def _fit(data: Array, initial: Array, seed: int, **options: float) -> Array:
    with warnings.catch_warnings():
        # Expected: filters of a small layer may have no common neighbors.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        warnings.filterwarnings("ignore", message="Tensorflow not installed")
        reducer = _import_umap()(
            n_neighbors=min(MAX_NEIGHBORS, len(data) - 1),
            init=initial.astype(np.float32),
            random_state=seed,
            n_jobs=1,
            **options,
        )
        return np.asarray(reducer.fit_transform(data.astype(np.float32)), np.float64)


@functools.cache
def _import_umap() -> Any:
    """Return the class UMAP of umap-learn."""
    from umap import UMAP, layouts, umap_, utils

    for module in (umap_, layouts, utils):
        enable_numba_disk_cache(vars(module).values())
    return UMAP


def enable_numba_disk_cache(objects: Iterable[object]) -> None:
    """Have Numba cache the machine code of its functions among these objects on the disk.

    umap-learn has most of its functions compiled in each process. That takes some ten seconds of a
    processor whenever a server starts beside a training.
    """
    for function in list(objects):
        enable_caching = getattr(function, "enable_caching", None)
        if not callable(enable_caching):
            continue
        try:
            enable_caching()
        except RuntimeError as error:  # no folder is writable
            log.info("UMAP is compiled again at the next start: %s", error)
            return
