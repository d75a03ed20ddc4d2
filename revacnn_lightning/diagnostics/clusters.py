"""How clustered the filters of a layer are: the published sign of a badly trained network.

All measures compare the directions of the coefficients: their length is divided out. Each is given
beside what random filters of the same number and length have, because few filters, or filters of
few coefficients, look clustered by chance.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import pdist, squareform

from revacnn_lightning.diagnostics.degenerate import normalize_rows

__all__ = [
    "FilterClusterMeasures",
    "best_silhouette",
    "hopkins",
    "measure_clusters",
    "relative_effective_rank",
]

MIN_FILTERS = 8  # fewer have no clusters that differ from chance
MAX_CLUSTERS = 8
COMPONENTS = 4  # in which Hopkins' statistic is measured
RANDOM_DRAWS = 3


@dataclass(frozen=True)
class FilterClusterMeasures:
    """How clustered filters are, and how clustered random ones are; NaN for too few filters."""

    silhouette: float
    hopkins: float
    effective_rank: float
    random_silhouette: float
    random_effective_rank: float


def measure_clusters(features: np.ndarray) -> FilterClusterMeasures:
    """Return the measures of the filters that are neither zero nor not finite.

    Cost: C² distances and C² log C comparisons, and as much for each of three random layers the
    first time that this number of filters and coefficients is measured.

    Args:
        features: coefficients, or a projection that keeps distances, (C, d).
    """
    rows = np.asarray(features, np.float64)
    rows = rows[np.isfinite(rows).all(1) & rows.any(1)]
    if len(rows) < MIN_FILTERS or rows.shape[1] < 2:
        return FilterClusterMeasures(*[float("nan")] * 5)
    unit_vectors = normalize_rows(rows)
    of_random = _random_measures(*unit_vectors.shape)
    return FilterClusterMeasures(
        best_silhouette(unit_vectors),
        hopkins(unit_vectors),
        relative_effective_rank(unit_vectors),
        *of_random,
    )


@functools.lru_cache(maxsize=64)
def _random_measures(n_filters: int, n_coefficients: int) -> tuple[float, float]:
    generator = np.random.default_rng(n_filters * 65_537 + n_coefficients)
    draws = [
        normalize_rows(generator.standard_normal((n_filters, n_coefficients)))
        for _ in range(RANDOM_DRAWS)
    ]
    silhouettes = [best_silhouette(unit_vectors) for unit_vectors in draws]
    return float(np.mean(silhouettes)), float(
        np.mean([relative_effective_rank(unit_vectors) for unit_vectors in draws])
    )


def best_silhouette(unit_vectors: np.ndarray) -> float:
    """Return the mean silhouette of the best of 2 to `MAX_CLUSTERS` clusters, -1 to 1.

    Average linkage of the Euclidean distances. Near 1, each filter is much closer to its own
    cluster than to the next one; near 0, there are no clusters.

    Source: Rousseeuw 1987, "Silhouettes: a graphical aid to the interpretation and validation of
    cluster analysis".

    Args:
        unit_vectors: rows of length 1, (C, d).
    """
    condensed = pdist(unit_vectors)
    if not condensed.any():
        return 1.0  # all filters are the same: one perfect cluster
    tree, distances = average(condensed), squareform(condensed)
    cuts = range(2, min(MAX_CLUSTERS, len(unit_vectors) - 1) + 1)
    return max(_silhouette_of(distances, fcluster(tree, n, criterion="maxclust")) for n in cuts)


def _silhouette_of(distances: np.ndarray, labels: np.ndarray) -> float:
    members = labels[:, None] == np.unique(labels)  # (C, clusters)
    if members.shape[1] < 2:
        return 0.0
    counts, own = members.sum(0), members.argmax(1)
    sums = distances @ members
    n_own = counts[own]
    rows = np.arange(len(labels))
    within = sums[rows, own] / np.maximum(n_own - 1, 1)
    means = sums / counts
    means[rows, own] = np.inf
    nearest = means.min(1)
    widest = np.maximum(np.maximum(within, nearest), 1e-300)
    return float(np.where(n_own > 1, (nearest - within) / widest, 0.0).mean())


def hopkins(unit_vectors: np.ndarray) -> float:
    """Return Hopkins' statistic in the first `COMPONENTS` principal components, 0 to 1.

    Σu / (Σu + Σw), where u are distances of uniformly random points of the bounding box to the
    nearest filter, and w those of filters to the nearest other one. About 0.5 without clusters,
    towards 1 with them. The random points are the same each time.

    Source: Hopkins and Skellam 1954, "A new method for determining the type of distribution of
    plant individuals".

    Args:
        unit_vectors: rows of length 1, (C, d).
    """
    centered = unit_vectors - unit_vectors.mean(0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    points = centered @ axes[:COMPONENTS].T
    low, high = points.min(0), points.max(0)
    uniform = np.random.default_rng(0).uniform(low, high, points.shape)
    between = squareform(pdist(points))
    np.fill_diagonal(between, np.inf)
    nearest_other = between.min(1).sum()
    squares = ((uniform[:, None] - points[None]) ** 2).sum(2)
    nearest_filter = np.sqrt(squares.min(1)).sum()
    total = nearest_filter + nearest_other
    return float(nearest_filter / total) if total > 0 else 1.0


def relative_effective_rank(unit_vectors: np.ndarray) -> float:
    """Return the effective rank divided by the largest possible one, above 0 to 1.

    exp of the entropy of the normalized singular values: how many directions the filters span,
    weighted by how much.

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".

    Args:
        unit_vectors: rows of length 1, (C, d).
    """
    values = np.linalg.svd(unit_vectors, compute_uv=False)
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()) / min(unit_vectors.shape))
