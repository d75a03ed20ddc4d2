"""Projection of a layer's filters onto a plane where similar filters are neighbors.

Pure functions of arrays; `viewer.embedding.worker` runs them in a separate process. Each projection
starts from, or is aligned with, the previous one, so that filters stay in place.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec import Struct

from revacnn_lightning.diagnostics.degenerate import (
    ComparisonExclusion,
    find_zero_nonfinite_identical,
    normalize_rows,
)
from revacnn_lightning.diagnostics.near_duplicates import group_near_duplicates

from .alignment import ViewSquare, align, is_finite_and_spread, next_view_square
from .pca import center_and_limit_dimensions, principal_components
from .placement import MIN_PROJECTED, grid_positions, place_degenerate_filters, resolve_overlaps
from .tsne import tsne
from .umap import scale_to_square, umap
from .warm_start import embed_from_previous, has_enough_finite_points, rows_of_ids

__all__ = ["METHODS", "Method", "Projection", "ProjectionJob", "mean_direction_change", "project"]

Method = Literal["tsne", "umap", "pca"]
METHODS: tuple[Method, ...] = ("tsne", "umap", "pca")

Array = np.ndarray


class Projection(Struct, frozen=True):
    """Positions of a layer's filters. Rows are in the order of ``ids``.

    Attributes:
        method: the method that has computed it.
        ids: permanent ids of the filters, int64 (n,).
        positions: float32 (n, 2), in [-1, 1]²; degenerate filters are in a row below, at
            `placement.DEGENERATE_ROW_Y`.
        degenerate: `ComparisonExclusion` of each filter, uint8 (n,).
        same_as: id of the filter that an identical one equals, otherwise -1, int64 (n,).
        duplicate_group: index of the group of near duplicates (`group_near_duplicates`), -1 if in
            none or not computed, int64 (n,).
        embedding: coordinates computed by the method, float64 (n, 2); NaN for degenerate filters.
        view_square: visible square of ``embedding``: center x, center y, half width.
    """

    method: Method
    ids: Array
    positions: Array
    degenerate: Array
    same_as: Array
    duplicate_group: Array
    embedding: Array
    view_square: ViewSquare = (0.0, 0.0, 0.0)


class ProjectionJob(Struct, frozen=True, tag=True):
    """Features to project.

    Attributes:
        features: (n, d), one row per filter.
        ids: permanent ids of the filters, int64 (n,).
        last: the previous projection; None for the first.
        change: `mean_direction_change` of the features since ``last``.
        from_scratch: do not start from ``last``, but align the result with it.
        find_duplicates: also search for near duplicates.
        seed: the seed of random numbers. If not 0, it also perturbs an initialization from scratch.
    """

    features: Array
    ids: Array
    method: Method = "tsne"
    last: Projection | None = None
    change: float = 1.0
    from_scratch: bool = False
    find_duplicates: bool = False
    seed: int = 0


def mean_direction_change(features_before: Array, features_now: Array) -> float:
    """Return how far the directions of features have changed: 0, equal, to 2, opposite.

    It is the mean distance between the unit vectors of equal rows of two arrays (n, d).
    Rows that are not finite are ignored. The result is 1 if nothing can be compared.
    """
    if features_before.shape != features_now.shape:
        return 1.0
    both = np.isfinite(features_before).all(axis=1) & np.isfinite(features_now).all(axis=1)
    if not both.any():
        return 1.0
    difference = normalize_rows(features_now[both]) - normalize_rows(features_before[both])
    return float(np.linalg.norm(difference, axis=1).mean())


def project(job: ProjectionJob) -> Projection:
    """Return the projection of the features of a job."""
    ids = np.asarray(job.ids, np.int64)
    degenerate, twin = find_zero_nonfinite_identical(job.features)
    regular = np.flatnonzero(degenerate == ComparisonExclusion.NONE)
    positions = np.zeros((len(ids), 2), np.float32)
    embedding = np.full((len(ids), 2), np.nan)
    view_square = (0.0, 0.0, 0.0)
    if len(regular) < MIN_PROJECTED:
        positions[regular] = grid_positions(len(regular))
    else:
        embedding[regular] = _embed(job, ids[regular], job.features[regular])
        view_square = next_view_square(embedding[regular], _last_view_square(job))
        positions[regular] = resolve_overlaps(
            (embedding[regular] - view_square[:2]) / view_square[2]
        )
    is_degenerate = degenerate != ComparisonExclusion.NONE
    positions[is_degenerate] = place_degenerate_filters(degenerate[is_degenerate])
    same_as = np.where(twin >= 0, ids[twin], -1)
    groups = group_near_duplicates(job.features) if job.find_duplicates else np.full(len(ids), -1)
    return Projection(
        job.method, ids, positions, degenerate, same_as, groups, embedding, view_square
    )


def _embed(job: ProjectionJob, ids: Array, features: Array) -> Array:
    """Return the embedding (n, 2) of the regular filters, aligned with the previous one."""
    data = center_and_limit_dimensions(normalize_rows(features))
    previous = np.full((len(ids), 2), np.nan)
    if job.last is not None:
        previous = rows_of_ids(job.last.embedding, job.last.ids, ids)
    is_same_method = job.last is not None and job.last.method == job.method
    is_warm = is_same_method and not job.from_scratch and has_enough_finite_points(previous)
    if job.method == "pca":
        points = principal_components(data)
    elif is_warm:
        points = embed_from_previous(previous, data, job.method, job.change, job.seed)
    else:
        points = tsne(data, job.seed) if job.method == "tsne" else umap(data, job.seed)
    if not is_finite_and_spread(points):
        points = principal_components(data)
    if is_warm and job.method != "pca":
        return points
    if not is_same_method and job.last is not None and job.last.view_square[2] > 0:
        # Each method has its own scale.
        previous = previous / job.last.view_square[2] * np.abs(points).max()
    points = align(points, previous)
    return scale_to_square(points) if job.method == "umap" else points


def _last_view_square(job: ProjectionJob) -> ViewSquare | None:
    """Return the visible square of a comparable previous projection."""
    last = job.last
    is_comparable = last is not None and not job.from_scratch and last.method == job.method
    return (
        last.view_square if last is not None and is_comparable and last.view_square[2] > 0 else None
    )
