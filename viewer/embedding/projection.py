"""Lays the filters of a layer out in a plane, like beside like, and keeps them where they were.

Pure functions of arrays; `viewer.embedding.worker` runs them in a process of their own.

- t-SNE (van der Maaten and Hinton 2008) by openTSNE, begun from the last layout and without early
  exaggeration: filters that have hardly changed hardly move. Cold runs begin from the principal
  components (Kobak and Berens 2019).
- UMAP (McInnes, Healy and Melville 2018), also begun from the last layout, with a learning rate
  so small that the layout keeps its shape.
- PCA. This, and every layout from nothing, is turned onto the last one.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from msgspec import Struct
from scipy.spatial import cKDTree

from revacnn_lightning.diagnostics.degenerate import DegenerateKind, find_degenerate, unit_rows
from revacnn_lightning.diagnostics.near_duplicates import find_near_duplicates

from .placement import SMALLEST, aside, grid, shaken, spread

__all__ = [
    "METHODS",
    "Method",
    "Projection",
    "ProjectionJob",
    "perplexity",
    "project",
    "relative_change",
]

Method = Literal["tsne", "umap", "pca"]
METHODS: tuple[Method, ...] = ("tsne", "umap", "pca")

COMPONENTS = 50  # principal components kept before distances are taken
NEIGHBOURS = 5  # a new filter stands among so many of its nearest
FOLLOW = 0.25  # the frame follows the layout's extent by this part per refresh
MANY = 1024  # filters: above, first layouts are made with fewer iterations
# Iterations of a warm start: the more, the more the data has moved.
LEAST, PER_CHANGE, MOST = 25, 800, 300
# Learning rate of a warm start, as a part of the usual one, for data that stands still: a small
# layer would go on rearranging itself. It grows with the change, up to the usual one.
LEAST_RATE, RATE_PER_CHANGE = 0.6, 2.0
# Changes after which a layout is compared with one begun again, and after which it has to be begun
# again. Of a FEW filters that takes no time: they are compared sooner.
CHANGED, ANOTHER = 0.1, 0.5
FEW, CHANGED_FEW = 256, 0.04
AGAIN = (75, 225)  # iterations of a layout that is begun again, early and late
TRULY = 1.01  # so much truer must one be for which filters leave their places
NEAREST = 7  # neighbours by which it is judged how true a layout is

Array = np.ndarray


class Projection(Struct, frozen=True):
    """Where the filters of a layer stand. Rows in the order of ``ids``.

    Attributes:
        method: what it was made by.
        ids: of the filters, for life, int64 (n,).
        positions: float32 (n, 2), in [-1, 1]² but for the odd ones, which stand aside
            (`arrangement.ASIDE_Y`).
        odd: `DegenerateKind` of each, uint8 (n,).
        same_as: id of the filter that an identical one equals, else -1, int64 (n,).
        alike: number of its group of near duplicates (`find_near_duplicates`), int64 (n,); -1: in none,
            or nobody asked.
        embedding: the method's own coordinates, float64 (n, 2); NaN for the odd ones.
        frame: centre (x, y) and half width of the square of ``embedding`` that is shown.
    """

    method: Method
    ids: Array
    positions: Array
    degenerate: Array
    same_as: Array
    duplicate_group: Array
    embedding: Array
    frame: tuple[float, float, float] = (0.0, 0.0, 0.0)


class ProjectionJob(Struct, frozen=True, tag=True):
    """Features to lay out.

    Attributes:
        features: (n, d), one row per filter.
        ids: of the filters, for life, int64 (n,).
        last: the layout to begin from; None for a first one.
        change: `relative_change` of the features since ``last``.
        anew: begin from nothing, and only turn the result onto ``last``.
        compare: also look for near duplicates.
        seed: of what is random; another one begins from another start.
    """

    features: Array
    ids: Array
    method: Method = "tsne"
    last: Projection | None = None
    change: float = 1.0
    from_scratch: bool = False
    find_duplicates: bool = False
    seed: int = 0


def perplexity(n: int) -> float:
    """Perplexity for ``n`` points: t-SNE needs three times as many neighbours as this."""
    return max(1.0, min(30.0, (n - 1) / 3))


def relative_change(before: Array, now: Array) -> float:
    """How far the directions of the rows have moved, mean over the rows; 0 to 2."""
    if before.shape != now.shape:
        return 1.0
    both = np.isfinite(before).all(axis=1) & np.isfinite(now).all(axis=1)
    if not both.any():
        return 1.0
    moved = unit_rows(now[both]) - unit_rows(before[both])
    return float(np.linalg.norm(moved, axis=1).mean())


def project(job: ProjectionJob) -> Projection:
    """The layout of one set of features."""
    ids = np.asarray(job.ids, np.int64)
    odd, twin = find_degenerate(job.features)
    sound = np.flatnonzero(odd == DegenerateKind.NONE)
    positions = np.zeros((len(ids), 2), np.float32)
    embedding = np.full((len(ids), 2), np.nan)
    frame = (0.0, 0.0, 0.0)
    if len(sound) < SMALLEST:
        positions[sound] = grid(len(sound))
    else:
        last = _coordinates_of(job.last, ids[sound])
        data = _reduce(unit_rows(job.features[sound]))
        embedding[sound] = _embed(data, last, job)
        frame = _frame(embedding[sound], job)
        positions[sound] = spread((embedding[sound] - frame[:2]) / frame[2])
    positions[odd != DegenerateKind.NONE] = aside(odd[odd != DegenerateKind.NONE])
    same_as = np.where(twin >= 0, ids[twin], -1)
    alike = find_near_duplicates(job.features) if job.find_duplicates else np.full(len(ids), -1)
    return Projection(job.method, ids, positions, odd, same_as, alike, embedding, frame)


# ---------------------------------------------------------------- from the last layout


def _coordinates_of(last: Projection | None, ids: Array) -> Array:
    """The last layout's own coordinates of these filters, NaN where it has none, (n, 2)."""
    found = np.full((len(ids), 2), np.nan)
    if last is not None and len(last.ids):
        at = {int(name): row for row, name in enumerate(last.ids)}
        for i, name in enumerate(ids.tolist()):
            if name in at:
                found[i] = last.embedding[at[name]]
    return found


def _place_new(data: Array, last: Array) -> Array:
    """Fill the gaps of ``last`` (n, 2): each new point among its nearest neighbours in ``data``."""
    known = np.isfinite(last).all(axis=1)
    if known.all():
        return last
    tree = cKDTree(data[known])
    distance, nearest = tree.query(data[~known], k=min(NEIGHBOURS, int(known.sum())))
    distance, nearest = distance.reshape(len(distance), -1), nearest.reshape(len(nearest), -1)
    weight = 1 / (distance + 1e-6)
    weight /= weight.sum(axis=1, keepdims=True)
    placed = last.copy()
    placed[~known] = np.einsum("ij,ijk->ik", weight, last[known][nearest])  # (new, 2)
    return placed


def _onto(points: Array, target: Array) -> Array:
    """``points`` (n, 2) turned and mirrored, not bent, to fit those rows of ``target`` not NaN.

    The orthogonal Procrustes problem (Schönemann 1966), with a shift.
    """
    known = np.isfinite(target).all(axis=1)
    if known.sum() < 3:
        return points
    here, there = points[known].mean(axis=0), target[known].mean(axis=0)
    u, _, vt = np.linalg.svd((points[known] - here).T @ (target[known] - there))
    return (points - here) @ (u @ vt) + there


# ---------------------------------------------------------------- the methods


def _reduce(data: Array) -> Array:
    """At most `COMPONENTS` principal components of ``data`` (n, d)."""
    if min(data.shape) <= COMPONENTS:
        return data - data.mean(axis=0)
    return _principal(data, COMPONENTS)


def _embed(data: Array, last: Array, job: ProjectionJob) -> Array:
    """Coordinates (n, 2) by the job's method; ``last`` (n, 2) is where they were, or NaN."""
    kept = int(np.isfinite(last).all(axis=1).sum())
    same_method = job.last is not None and job.last.method == job.method
    warm = same_method and not job.from_scratch and kept >= max(SMALLEST, len(data) // 4)
    if job.method == "tsne":
        points = _tsne_warm(data, _place_new(data, last), job) if warm else _tsne_cold(data, job)
    elif job.method == "umap":
        points = _umap_warm(data, _place_new(data, last), job) if warm else _umap(data, job)
    else:
        points = _pca(data)
    if not _is_drawn(points):
        points = _pca(data)
    if warm and job.method != "pca":
        return points
    if not same_method and job.last is not None and job.last.frame[2] > 0:
        last = last / job.last.frame[2] * np.abs(points).max()  # another method, another scale
    points = _onto(points, last)
    return _umap_box(points) if job.method == "umap" else points


def _is_drawn(points: Array) -> bool:
    """Whether the points are finite and not all in one place."""
    return bool(np.isfinite(points).all()) and float(np.ptp(points, axis=0).max()) > 1e-9


def _pca(data: Array) -> Array:
    """The first two principal components (n, 2), at least one of them of some extent."""
    return _principal(data, 2)


def _principal(data: Array, components: int) -> Array:
    from sklearn.decomposition import PCA  # half a second that only the worker has to spend

    solver = "covariance_eigh" if len(data) > data.shape[1] else "full"
    return np.asarray(PCA(components, svd_solver=solver).fit_transform(data), np.float64)


def _affinities(data: Array, seed: int):  # type: ignore[no-untyped-def]  # openTSNE has no types
    from openTSNE.affinity import PerplexityBasedNN

    return PerplexityBasedNN(
        data, perplexity=perplexity(len(data)), method="exact", n_jobs=1, random_state=seed
    )


def _tsne_begin(data: Array, at: Array, seed: int):  # type: ignore[no-untyped-def]
    from openTSNE import TSNEEmbedding

    return TSNEEmbedding(
        at, _affinities(data, seed), negative_gradient_method="bh", n_jobs=1, random_state=seed
    )


def _tsne(data: Array, start: Array, early: int, late: int, job: ProjectionJob) -> Array:
    """A t-SNE from ``start`` (n, 2), of which only the shape counts, from early exaggeration on."""
    start = (start - start.mean(axis=0)) * (1e-4 / max(float(start.std()), 1e-12))
    # Few points would collapse under the usual exaggeration of 12.
    exaggeration = min(12.0, max(1.0, len(data) / 12))
    embedding = _tsne_begin(data, start, job.seed)
    embedding = embedding.optimize(early, exaggeration=exaggeration, momentum=0.5)
    return np.array(embedding.optimize(late, momentum=0.8), np.float64)


def _tsne_cold(data: Array, job: ProjectionJob) -> Array:
    """A t-SNE from nothing."""
    early, late = (100, 250) if len(data) > MANY else (250, 600)
    return _tsne(data, shaken(_pca(data), job.seed), early, late, job)


def _tsne_warm(data: Array, last: Array, job: ProjectionJob) -> Array:
    """Some more iterations from where the points stand.

    The more the data has changed, the more the last layout would hold the new one back: of other
    data, it is only the start of a run from nothing. A chain of warm starts may also lose what is
    alike: beyond some change it is compared with a layout from the principal components.
    """
    if job.change > ANOTHER:
        kept, enough = _tsne(data, last, *AGAIN, job), 1.0
    else:
        kept, enough = _tsne_on(data, last, job), TRULY
    if job.change > (CHANGED_FEW if len(data) <= FEW else CHANGED):
        other = _tsne(data, _pca(data), *AGAIN, job)
        if _trueness(data, other) > enough * _trueness(data, kept):
            return _onto(other, last)
    return _onto(kept, last) if job.change > ANOTHER else kept


def _tsne_on(data: Array, last: Array, job: ProjectionJob) -> Array:
    """A t-SNE that goes on from ``last`` (n, 2)."""
    embedding = _tsne_begin(data, last, job.seed)
    iterations = min(MOST, int(LEAST + PER_CHANGE * job.change))
    rate = len(data) * min(1.0, LEAST_RATE + RATE_PER_CHANGE * job.change)
    return np.array(embedding.optimize(iterations, learning_rate=rate, momentum=0.8), np.float64)


def _trueness(data: Array, points: Array) -> float:
    """Trustworthiness of a layout (Venna and Kaski 2001): are neighbours really alike?"""
    from sklearn.manifold import trustworthiness

    if not _is_drawn(points):
        return 0.0
    # It is defined for fewer neighbours than half of the points.
    return float(trustworthiness(data, points, n_neighbors=min(NEAREST, (len(data) - 1) // 2)))


def _umap(data: Array, job: ProjectionJob) -> Array:
    return _run_umap(data, _umap_box(shaken(_pca(data), job.seed)), job, n_epochs=200)


def _umap_warm(data: Array, last: Array, job: ProjectionJob) -> Array:
    """Some epochs with small steps. UMAP stretches its start to a box; ours always fills it."""
    rate = min(0.04, 0.005 + 0.1 * job.change)
    return _umap_box(_run_umap(data, _umap_box(last), job, n_epochs=30, learning_rate=rate))


def _umap_box(points: Array) -> Array:
    """``points`` (n, 2) stretched to [0, 10]²."""
    extent = np.ptp(points, axis=0)
    return 10 * (points - points.min(axis=0)) / np.where(extent > 0, extent, 1.0)


def _run_umap(data: Array, start: Array, job: ProjectionJob, **options: float) -> Array:
    with warnings.catch_warnings():
        # A small layer can have filters without any neighbour in common: they are drawn apart.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        warnings.filterwarnings("ignore", message="Tensorflow not installed")
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=min(15, len(data) - 1),
            init=start.astype(np.float32),
            random_state=job.seed,
            n_jobs=1,
            **options,
        )
        return np.asarray(reducer.fit_transform(data.astype(np.float32)), np.float64)


# ---------------------------------------------------------------- the picture


def _frame(embedding: Array, job: ProjectionJob) -> tuple[float, float, float]:
    """Centre and half width of what is shown of ``embedding`` (n, 2): it follows slowly."""
    low, high = embedding.min(axis=0), embedding.max(axis=0)
    (x, y), half = (low + high) / 2, float((high - low).max()) / 2
    last = job.last
    if last is None or job.from_scratch or last.method != job.method or last.frame[2] <= 0:
        return float(x), float(y), half
    x, y = (old + FOLLOW * (new - old) for old, new in zip(last.frame, (x, y), strict=False))
    inside = float(np.abs(embedding - (x, y)).max())
    return float(x), float(y), max(inside, last.frame[2] + FOLLOW * (half - last.frame[2]))
