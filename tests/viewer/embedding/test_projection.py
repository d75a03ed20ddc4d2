from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace
from sklearn.manifold import trustworthiness

from revacnn_lightning.diagnostics.degenerate import ComparisonExclusion, normalize_rows
from viewer.embedding.placement import DEGENERATE_ROW_Y
from viewer.embedding.projection import (
    METHODS,
    Method,
    Projection,
    ProjectionJob,
    mean_direction_change,
    project,
)
from viewer.embedding.tsne import perplexity

every_method = pytest.mark.parametrize("method", METHODS)


def make_clusters(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Return features of ``n`` filters in four clusters, (n, d)."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(4, d))
    return centers[np.arange(n) % 4] + 0.4 * rng.normal(size=(n, d))


def perturb(features: np.ndarray, part: float = 0.01) -> np.ndarray:
    noise = np.random.default_rng(9).normal(size=features.shape)
    return features + part * noise * np.linalg.norm(features, axis=1, keepdims=True) / 6


def project_first(features: np.ndarray, method: Method = "tsne") -> Projection:
    return project(ProjectionJob(features, np.arange(len(features)), method))


def project_next(features: np.ndarray, last: Projection, before: np.ndarray) -> Projection:
    change = mean_direction_change(before, features)
    return project(ProjectionJob(features, last.ids, last.method, last, change))


def project_until_stable(features: np.ndarray, method: Method) -> Projection:
    """Return a projection after some updates: the first still moves a little."""
    projection = project_first(features, method)
    for _ in range(3):
        projection = project_next(features, projection, features)
    return projection


def displacement(before: Projection, after: Projection) -> float:
    """Return the mean distance of common filters, relative to the root mean square radius."""
    _, i, j = np.intersect1d(before.ids, after.ids, return_indices=True)
    distance = np.linalg.norm(after.positions[j] - before.positions[i], axis=1).mean()
    centered = before.positions - before.positions.mean(axis=0)
    return float(distance / np.sqrt((centered**2).sum(axis=1).mean()))


def check_well_formed(projection: Projection, n: int) -> None:
    assert projection.positions.shape == (n, 2)
    assert np.isfinite(projection.positions).all()
    inside = projection.positions[projection.degenerate == ComparisonExclusion.NONE]
    row = projection.positions[projection.degenerate != ComparisonExclusion.NONE]
    assert (np.abs(inside) <= 1.0).all()
    assert np.allclose(row[:, 1], DEGENERATE_ROW_Y)
    assert (np.abs(row[:, 0]) <= 1.0 + 1e-6).all()


# ---------------------------------------------------------------- neighborhoods


@every_method
def test_similar_filters_are_neighbors(method: Method) -> None:
    features = make_clusters(48)

    projection = project_first(features, method)

    assert trustworthiness(features, projection.positions, n_neighbors=7) > 0.8
    kinds = np.stack([projection.positions[k::4].mean(axis=0) for k in range(4)])  # (4, 2)
    own = np.linalg.norm(projection.positions - kinds[np.arange(48) % 4], axis=1).mean()
    other = np.linalg.norm(projection.positions - kinds[(np.arange(48) + 1) % 4], axis=1).mean()
    assert other > 2 * own


def test_perplexity_fits_the_number_of_points() -> None:
    assert [perplexity(n) for n in (1, 4, 31, 91, 2048)] == [1, 1, 10, 30, 30]


@every_method
def test_filters_hardly_overlap(method: Method) -> None:
    projection = project_first(make_clusters(64), method)

    apart = np.linalg.norm(projection.positions[:, None] - projection.positions, axis=2)
    np.fill_diagonal(apart, 9)
    assert np.median(apart.min(axis=1)) > 0.09


# ---------------------------------------------------------------- stability


@every_method
def test_update_hardly_moves_filters(method: Method) -> None:
    features = make_clusters(64)
    projection = project_until_stable(features, method)

    after = project_next(perturb(features), projection, features)

    assert displacement(projection, after) < (0.12 if method == "umap" else 0.05)


def test_many_updates_remain_trustworthy() -> None:
    features = make_clusters(64)
    projection = project_first(features)
    rng = np.random.default_rng(3)
    for _ in range(10):
        before, features = features, features + 0.15 * rng.normal(size=features.shape)
        projection = project_next(features, projection, before)

    warm = trustworthiness(features, projection.positions, n_neighbors=7)
    cold = trustworthiness(features, project_first(features).positions, n_neighbors=7)
    assert warm >= 0.97 * cold


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_another_seed_gives_another_trustworthy_projection(method: Method) -> None:
    features = np.random.default_rng(0).normal(size=(64, 9))
    last = project_first(features, method)
    same, other = (
        project(ProjectionJob(features, last.ids, method, last, from_scratch=True, seed=seed))
        for seed in (0, 1)
    )
    assert displacement(last, same) < 0.1
    assert displacement(last, other) > 0.2
    kept, found = (
        trustworthiness(features, projection.positions, n_neighbors=7)
        for projection in (last, other)
    )
    assert found >= 0.95 * kept


@every_method
def test_projection_from_scratch_is_aligned_with_the_last(method: Method) -> None:
    features = make_clusters(64)
    last = project_first(features, method)
    flipped = {"positions": last.positions * (-1, 1), "embedding": last.embedding * (-1, 1)}
    mirrored = replace(last, **flipped)

    recomputed = project(ProjectionJob(features, last.ids, method, mirrored, from_scratch=True))

    assert displacement(mirrored, recomputed) < 0.3
    check_well_formed(recomputed, 64)


def test_another_method_is_aligned_with_the_last() -> None:
    features = make_clusters(64)
    tsne = project_first(features)

    pca = project(ProjectionJob(features, tsne.ids, "pca", tsne))

    unaligned = project_first(features, "pca")
    assert displacement(tsne, pca) <= 1.01 * displacement(tsne, unaligned)


# ---------------------------------------------------------------- edits


@every_method
def test_removing_filters_keeps_the_others_in_place(method: Method) -> None:
    features = make_clusters(64)
    projection = project_until_stable(features, method)
    keep = np.delete(np.arange(64), [5, 40])

    after = project(ProjectionJob(features[keep], keep, method, projection, change=0.0))

    np.testing.assert_array_equal(after.ids, keep)
    assert displacement(projection, after) < 0.12


@every_method
def test_new_filter_is_placed_among_its_neighbors(method: Method) -> None:
    features = make_clusters(64)
    projection = project_until_stable(features[:63], method)

    after = project(ProjectionJob(features, np.arange(64), method, projection, change=0.0))

    kind = after.positions[3:63:4]  # the new filter, 63, belongs to the last cluster
    radius = np.linalg.norm(kind - kind.mean(axis=0), axis=1).max()
    assert np.linalg.norm(after.positions[63] - kind.mean(axis=0)) <= 1.3 * radius
    assert displacement(projection, after) < 0.12


def test_positions_follow_filter_ids() -> None:
    features = make_clusters(32)
    projection = project_first(features)
    shuffled = np.random.default_rng(1).permutation(32)

    after = project(ProjectionJob(features[shuffled], shuffled, "tsne", projection, change=0.0))

    assert displacement(projection, after) < 0.05


def test_growing_from_three_to_thirty_filters() -> None:
    features = make_clusters(30)
    small = project_first(features[:3])

    check_well_formed(project(ProjectionJob(features, np.arange(30), "tsne", small)), 30)


# ---------------------------------------------------------------- bad input


@every_method
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 6, 7])
def test_few_filters(method: Method, n: int) -> None:
    projection = project_first(make_clusters(8)[:n], method)

    check_well_formed(projection, n)
    assert len(np.unique(projection.positions, axis=0)) == n
    check_well_formed(
        project(ProjectionJob(make_clusters(8)[:n], np.arange(n), method, projection)), n
    )


@every_method
def test_all_filters_equal(method: Method) -> None:
    projection = project_first(np.ones((64, 16)), method)

    check_well_formed(projection, 64)
    assert (projection.degenerate[1:] == ComparisonExclusion.IDENTICAL).all()
    assert projection.degenerate[0] == ComparisonExclusion.NONE
    assert (projection.same_as[1:] == 0).all()


@every_method
def test_all_filters_zero(method: Method) -> None:
    projection = project_first(np.zeros((64, 16)), method)

    check_well_formed(projection, 64)
    assert (projection.degenerate == ComparisonExclusion.ZERO).all()


@every_method
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, np.inf])
def test_40_of_64_equal(method: Method, value: float) -> None:
    features = make_clusters(64)
    features[10:50] = value

    projection = project_first(features, method)

    check_well_formed(projection, 64)
    assert (projection.degenerate[10:50] != ComparisonExclusion.NONE).sum() == (
        39 if value == 1 else 40
    )
    assert not projection.degenerate[:10].any()
    check_well_formed(project_next(features, projection, features), 64)


@every_method
def test_filter_that_is_no_longer_dead_is_projected(method: Method) -> None:
    features = make_clusters(32)
    dead = features.copy()
    dead[7] = 0
    projection = project_first(dead, method)

    after = project_next(features, projection, dead)

    assert projection.degenerate[7] == ComparisonExclusion.ZERO
    assert not after.degenerate.any()
    check_well_formed(after, 32)


@every_method
def test_features_with_one_dimension(method: Method) -> None:
    """1×1 and depthwise convolutions may have a single coefficient per filter."""
    one = np.random.default_rng(0).normal(size=(32, 1))
    two = np.random.default_rng(0).normal(size=(32, 2))

    one_dimensional = project_first(one, method)
    check_well_formed(one_dimensional, 32)
    assert (
        one_dimensional.degenerate == ComparisonExclusion.NONE
    ).sum() == 2  # two directions: plus and minus
    check_well_formed(project_first(two, method), 32)


@every_method
def test_collinear_features(method: Method) -> None:
    """After centering, the rank is one: the second component is noise."""
    t = np.linspace(0.1, 1, 40)[:, None]
    features = np.hstack([t, 1 - t, np.zeros((40, 14))])

    check_well_formed(project_first(features, method), 40)


@settings(deadline=None, max_examples=60)
@given(
    features=arrays.arrays(
        np.float16,
        st.tuples(st.integers(0, 12), st.integers(1, 6)),
        elements=st.floats(width=16),
    ),
    method=st.sampled_from(["tsne", "pca"]),
)
def test_arbitrary_features(features: np.ndarray, method: Method) -> None:
    projection = project_first(features, method)

    check_well_formed(projection, len(features))
    check_well_formed(project_next(features, projection, features), len(features))


def test_relative_change() -> None:
    features = make_clusters(16)

    assert mean_direction_change(features, 2 * features) == pytest.approx(0)
    assert mean_direction_change(features, -features) == pytest.approx(2)
    assert mean_direction_change(features, features[:4]) == 1
    assert mean_direction_change(np.full((3, 2), np.nan), np.ones((3, 2))) == 1


def test_many_updates_of_noisy_features_remain_trustworthy() -> None:
    """Warm starts alone lose trustworthiness with every update."""
    random = np.random.default_rng(4)
    before = make_clusters(64, seed=4)
    projection = project_first(before)
    for _ in range(12):
        now = before + 0.25 * random.normal(size=before.shape)
        assert 0.04 < mean_direction_change(before, now) < 0.5
        projection, before = project_next(now, projection, before), now

    warm, cold = (
        trustworthiness(normalize_rows(before), each.positions, n_neighbors=7)
        for each in (projection, project_first(before))
    )
    assert warm >= 0.96 * cold


def test_few_filters_are_compared_by_fewer_neighbors() -> None:
    features = make_clusters(5)
    projection = project_first(features)

    check_well_formed(project_next(features[::-1].copy(), projection, features), 5)
