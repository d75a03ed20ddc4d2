"""t-SNE, started from scratch or from the previous embedding.

t-SNE (van der Maaten and Hinton, 2008) with the Barnes-Hut approximation (van der Maaten, 2014), by
openTSNE. Embeddings from scratch start from the principal components (Kobak and Berens, 2019).
Warm starts skip early exaggeration, so that filters that have hardly changed hardly move.
"""

from __future__ import annotations

import numpy as np

from .alignment import align, is_finite_and_spread
from .pca import principal_components
from .placement import jitter

__all__ = ["perplexity", "tsne", "tsne_warm_start"]

MAX_PERPLEXITY = 30.0
MAX_EXAGGERATION = 12.0
LARGE_LAYER = 1024  # more points are embedded with fewer iterations
# Iterations with and without early exaggeration.
ITERATIONS, ITERATIONS_LARGE, ITERATIONS_RESTART = (250, 600), (100, 250), (75, 225)

# Iterations of a warm start, which increase with the change of the data.
MIN_ITERATIONS, ITERATIONS_PER_CHANGE, MAX_ITERATIONS = 25, 800, 300
# Learning rate of a warm start relative to the number of points, the usual rate without
# exaggeration (Linderman and Steinerberger, 2019). At the full rate, the embedding of a small layer
# keeps rearranging itself although the data does not change.
MIN_RATE, RATE_PER_CHANGE = 0.6, 2.0

# Change of the data above which a warm start is compared with a restart, and above which the
# previous embedding only serves as the initialization of a restart.
COMPARE_CHANGE, RESTART_CHANGE = 0.1, 0.5
SMALL_LAYER, COMPARE_CHANGE_SMALL = 256, 0.04  # restarts of small layers take no time
MIN_IMPROVEMENT = 1.01  # ratio of trustworthiness that justifies moving all filters
TRUST_NEIGHBORS = 7

Array = np.ndarray


def perplexity(n_points: int) -> float:
    """Return the perplexity for ``n_points`` points. t-SNE needs three times as many neighbors."""
    return max(1.0, min(MAX_PERPLEXITY, (n_points - 1) / 3))


def tsne(data: Array, seed: int) -> Array:
    """Return the embedding (n, 2) of ``data`` (n, d), computed from scratch."""
    iterations = ITERATIONS_LARGE if len(data) > LARGE_LAYER else ITERATIONS
    return _optimize(data, jitter(principal_components(data), seed), iterations, seed)


def tsne_warm_start(data: Array, previous: Array, data_change: float, seed: int) -> Array:
    """Return the embedding (n, 2) of ``data`` (n, d), started from ``previous`` (n, 2).

    The more the data has changed, the more the previous embedding constrains the new one, and
    neighborhoods may degrade over many warm starts. Beyond some change, the result is compared with
    an embedding that starts from the principal components; the more trustworthy one is kept.

    Args:
        data_change: how far the data have changed since ``previous``.
    """
    must_restart = data_change > RESTART_CHANGE
    if must_restart:
        continued, min_improvement = _optimize(data, previous, ITERATIONS_RESTART, seed), 1.0
    else:
        continued, min_improvement = _continue(data, previous, data_change, seed), MIN_IMPROVEMENT
    if data_change > (COMPARE_CHANGE_SMALL if len(data) <= SMALL_LAYER else COMPARE_CHANGE):
        restarted = _optimize(data, principal_components(data), ITERATIONS_RESTART, seed)
        needed = min_improvement * _trustworthiness(data, continued)
        if _trustworthiness(data, restarted) > needed:
            return align(restarted, previous)
    return align(continued, previous) if must_restart else continued


def _optimize(data: Array, initial: Array, iterations: tuple[int, int], seed: int) -> Array:
    """Return a full t-SNE, including early exaggeration, from the shape of ``initial`` (n, 2)."""
    initial = (initial - initial.mean(axis=0)) * (1e-4 / max(float(initial.std()), 1e-12))
    # The usual exaggeration of 12 collapses small sets of points.
    exaggeration = min(MAX_EXAGGERATION, max(1.0, len(data) / 12))
    early, late = iterations
    embedding = _create_embedding(data, initial, seed)
    embedding = embedding.optimize(early, exaggeration=exaggeration, momentum=0.5)
    return np.array(embedding.optimize(late, momentum=0.8), np.float64)


def _continue(data: Array, last: Array, data_change: float, seed: int) -> Array:
    """Return the embedding ``previous`` (n, 2) after some more iterations."""
    embedding = _create_embedding(data, last, seed)
    iterations = min(MAX_ITERATIONS, int(MIN_ITERATIONS + ITERATIONS_PER_CHANGE * data_change))
    rate = len(data) * min(1.0, MIN_RATE + RATE_PER_CHANGE * data_change)
    return np.array(embedding.optimize(iterations, learning_rate=rate, momentum=0.8), np.float64)


def _create_embedding(data: Array, initial: Array, seed: int):  # type: ignore[no-untyped-def]  # openTSNE has no types
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    affinities = PerplexityBasedNN(
        data, perplexity=perplexity(len(data)), method="exact", n_jobs=1, random_state=seed
    )
    return TSNEEmbedding(
        initial, affinities, negative_gradient_method="bh", n_jobs=1, random_state=seed
    )


def _trustworthiness(data: Array, points: Array) -> float:
    """Return the trustworthiness (Venna and Kaski, 2001) of ``points``, or 0 if not valid."""
    from sklearn.manifold import trustworthiness

    if not is_finite_and_spread(points):
        return 0.0
    # It is defined for fewer neighbors than half of the points.
    n_neighbors = min(TRUST_NEIGHBORS, (len(data) - 1) // 2)
    return float(trustworthiness(data, points, n_neighbors=n_neighbors))
