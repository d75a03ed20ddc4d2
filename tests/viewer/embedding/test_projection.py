from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace
from sklearn.manifold import trustworthiness

from revacnn_lightning.diagnostics.degenerate import DegenerateKind, unit_rows
from viewer.embedding.placement import DEGENERATE_ROW_Y
from viewer.embedding.projection import (
    METHODS,
    Method,
    Projection,
    ProjectionJob,
    project,
    relative_change,
)
from viewer.embedding.tsne import perplexity

every_method = pytest.mark.parametrize("method", METHODS)


def clusters(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Features of ``n`` filters of four kinds, (n, d)."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, d))
    return centres[np.arange(n) % 4] + 0.4 * rng.normal(size=(n, d))


def nudged(features: np.ndarray, part: float = 0.01) -> np.ndarray:
    noise = np.random.default_rng(9).normal(size=features.shape)
    return features + part * noise * np.linalg.norm(features, axis=1, keepdims=True) / 6


def first(features: np.ndarray, method: Method = "tsne") -> Projection:
    return project(ProjectionJob(features, np.arange(len(features)), method))


def follow(features: np.ndarray, last: Projection, before: np.ndarray) -> Projection:
    change = relative_change(before, features)
    return project(ProjectionJob(features, last.ids, last.method, last, change))


def settled(features: np.ndarray, method: Method) -> Projection:
    """A layout after some refreshes: a first one still moves a little."""
    layout = first(features, method)
    for _ in range(3):
        layout = follow(features, layout, features)
    return layout


def displacement(before: Projection, after: Projection) -> float:
    """Mean way of the filters that both have, in rms radii."""
    _, i, j = np.intersect1d(before.ids, after.ids, return_indices=True)
    way = np.linalg.norm(after.positions[j] - before.positions[i], axis=1).mean()
    centred = before.positions - before.positions.mean(axis=0)
    return float(way / np.sqrt((centred**2).sum(axis=1).mean()))


def check_well_formed(layout: Projection, n: int) -> None:
    assert layout.positions.shape == (n, 2)
    assert np.isfinite(layout.positions).all()
    inside = layout.positions[layout.degenerate == DegenerateKind.NONE]
    aside = layout.positions[layout.degenerate != DegenerateKind.NONE]
    assert (np.abs(inside) <= 1.0).all()
    assert np.allclose(aside[:, 1], DEGENERATE_ROW_Y)
    assert (np.abs(aside[:, 0]) <= 1.0 + 1e-6).all()


# ---------------------------------------------------------------- likeness


@every_method
def test_like_stands_beside_like(method: Method) -> None:
    features = clusters(48)

    layout = first(features, method)

    assert trustworthiness(features, layout.positions, n_neighbors=7) > 0.8
    kinds = np.stack([layout.positions[k::4].mean(axis=0) for k in range(4)])  # (4, 2)
    own = np.linalg.norm(layout.positions - kinds[np.arange(48) % 4], axis=1).mean()
    other = np.linalg.norm(layout.positions - kinds[(np.arange(48) + 1) % 4], axis=1).mean()
    assert other > 2 * own


def test_perplexity_fits_the_number_of_points() -> None:
    assert [perplexity(n) for n in (1, 4, 31, 91, 2048)] == [1, 1, 10, 30, 30]


@every_method
def test_pictures_do_not_hide_each_other(method: Method) -> None:
    layout = first(clusters(64), method)

    apart = np.linalg.norm(layout.positions[:, None] - layout.positions, axis=2)
    np.fill_diagonal(apart, 9)
    assert np.median(apart.min(axis=1)) > 0.09


# ---------------------------------------------------------------- stability


@every_method
def test_a_refresh_hardly_moves_the_filters(method: Method) -> None:
    features = clusters(64)
    layout = settled(features, method)

    after = follow(nudged(features), layout, features)

    assert displacement(layout, after) < (0.12 if method == "umap" else 0.05)


def test_a_chain_of_refreshes_stays_as_true_as_a_first_layout() -> None:
    features = clusters(64)
    layout = first(features)
    rng = np.random.default_rng(3)
    for _ in range(10):
        before, features = features, features + 0.15 * rng.normal(size=features.shape)
        layout = follow(features, layout, before)

    warm = trustworthiness(features, layout.positions, n_neighbors=7)
    cold = trustworthiness(features, first(features).positions, n_neighbors=7)
    assert warm >= 0.97 * cold


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_a_layout_anew_of_the_same_features_is_another_as_true_as_the_last(method: Method) -> None:
    features = np.random.default_rng(0).normal(size=(64, 9))
    last = first(features, method)
    same, other = (
        project(ProjectionJob(features, last.ids, method, last, from_scratch=True, seed=seed))
        for seed in (0, 1)
    )
    assert displacement(last, same) < 0.1
    assert displacement(last, other) > 0.2
    kept, found = (
        trustworthiness(features, layout.positions, n_neighbors=7) for layout in (last, other)
    )
    assert found >= 0.95 * kept


@every_method
def test_laid_out_anew_is_turned_onto_the_last(method: Method) -> None:
    features = clusters(64)
    last = first(features, method)
    turned = {"positions": last.positions * (-1, 1), "embedding": last.embedding * (-1, 1)}
    mirrored = replace(last, **turned)

    anew = project(ProjectionJob(features, last.ids, method, mirrored, from_scratch=True))

    assert displacement(mirrored, anew) < 0.3
    check_well_formed(anew, 64)


def test_another_method_is_turned_onto_the_last() -> None:
    features = clusters(64)
    tsne = first(features)

    pca = project(ProjectionJob(features, tsne.ids, "pca", tsne))

    alone = first(features, "pca")
    assert displacement(tsne, pca) <= displacement(tsne, alone) + 1e-6


# ---------------------------------------------------------------- edits


@every_method
def test_a_removed_filter_disappears_and_the_rest_stays(method: Method) -> None:
    features = clusters(64)
    layout = settled(features, method)
    keep = np.delete(np.arange(64), [5, 40])

    after = project(ProjectionJob(features[keep], keep, method, layout, change=0.0))

    np.testing.assert_array_equal(after.ids, keep)
    assert displacement(layout, after) < 0.12


@every_method
def test_a_new_filter_stands_among_its_nearest(method: Method) -> None:
    features = clusters(64)
    layout = settled(features[:63], method)

    after = project(ProjectionJob(features, np.arange(64), method, layout, change=0.0))

    kind = after.positions[3:63:4]  # the new one, 63, is of the last kind
    radius = np.linalg.norm(kind - kind.mean(axis=0), axis=1).max()
    assert np.linalg.norm(after.positions[63] - kind.mean(axis=0)) <= 1.3 * radius
    assert displacement(layout, after) < 0.12


def test_positions_follow_ids_not_rows() -> None:
    features = clusters(32)
    layout = first(features)
    shuffled = np.random.default_rng(1).permutation(32)

    after = project(ProjectionJob(features[shuffled], shuffled, "tsne", layout, change=0.0))

    assert displacement(layout, after) < 0.05


def test_a_layer_that_grows_from_three_to_thirty() -> None:
    features = clusters(30)
    small = first(features[:3])

    check_well_formed(project(ProjectionJob(features, np.arange(30), "tsne", small)), 30)


# ---------------------------------------------------------------- bad input


@every_method
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 6, 7])
def test_few_filters(method: Method, n: int) -> None:
    layout = first(clusters(8)[:n], method)

    check_well_formed(layout, n)
    assert len(np.unique(layout.positions, axis=0)) == n
    check_well_formed(project(ProjectionJob(clusters(8)[:n], np.arange(n), method, layout)), n)


@every_method
def test_all_filters_equal(method: Method) -> None:
    layout = first(np.ones((64, 16)), method)

    check_well_formed(layout, 64)
    assert (layout.degenerate[1:] == DegenerateKind.IDENTICAL).all()
    assert layout.degenerate[0] == DegenerateKind.NONE
    assert (layout.same_as[1:] == 0).all()


@every_method
def test_all_filters_zero(method: Method) -> None:
    layout = first(np.zeros((64, 16)), method)

    check_well_formed(layout, 64)
    assert (layout.degenerate == DegenerateKind.DEAD).all()


@every_method
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, np.inf])
def test_40_of_64_equal(method: Method, value: float) -> None:
    features = clusters(64)
    features[10:50] = value

    layout = first(features, method)

    check_well_formed(layout, 64)
    assert (layout.degenerate[10:50] != DegenerateKind.NONE).sum() == (39 if value == 1 else 40)
    assert not layout.degenerate[:10].any()
    check_well_formed(follow(features, layout, features), 64)


@every_method
def test_a_filter_that_revives_comes_back_among_the_others(method: Method) -> None:
    features = clusters(32)
    dead = features.copy()
    dead[7] = 0
    layout = first(dead, method)

    after = follow(features, layout, dead)

    assert layout.degenerate[7] == DegenerateKind.DEAD
    assert not after.degenerate.any()
    check_well_formed(after, 32)


@every_method
def test_features_of_one_dimension(method: Method) -> None:
    """A 1×1 or a depthwise conv may have as little as one coefficient per filter."""
    one = np.random.default_rng(0).normal(size=(32, 1))
    two = np.random.default_rng(0).normal(size=(32, 2))

    lone = first(one, method)
    check_well_formed(lone, 32)
    assert (lone.degenerate == DegenerateKind.NONE).sum() == 2  # two directions: plus and minus
    check_well_formed(first(two, method), 32)


@every_method
def test_filters_on_one_line(method: Method) -> None:
    """Rank one after centring: the second component is nothing but noise."""
    t = np.linspace(0.1, 1, 40)[:, None]
    features = np.hstack([t, 1 - t, np.zeros((40, 14))])

    check_well_formed(first(features, method), 40)


@settings(deadline=None, max_examples=60)
@given(
    features=arrays.arrays(
        np.float16,
        st.tuples(st.integers(0, 12), st.integers(1, 6)),
        elements=st.floats(width=16),
    ),
    method=st.sampled_from(["tsne", "pca"]),
)
def test_any_features_can_be_laid_out(features: np.ndarray, method: Method) -> None:
    layout = first(features, method)

    check_well_formed(layout, len(features))
    check_well_formed(follow(features, layout, features), len(features))


def test_relative_change() -> None:
    features = clusters(16)

    assert relative_change(features, 2 * features) == pytest.approx(0)
    assert relative_change(features, -features) == pytest.approx(2)
    assert relative_change(features, features[:4]) == 1
    assert relative_change(np.full((3, 2), np.nan), np.ones((3, 2))) == 1


def test_a_chain_of_layouts_of_restless_data_stays_as_true_as_a_first_one() -> None:
    """It lost some likeness with every refresh."""
    random = np.random.default_rng(4)
    before = clusters(64, seed=4)
    layout = first(before)
    for _ in range(12):
        now = before + 0.25 * random.normal(size=before.shape)
        assert 0.04 < relative_change(before, now) < 0.5
        layout, before = follow(now, layout, before), now

    here, anew = (
        trustworthiness(unit_rows(before), each.positions, n_neighbors=7)
        for each in (layout, first(before))
    )
    assert here >= 0.96 * anew


def test_two_filters_more_than_a_grid_are_compared_by_fewer_neighbours() -> None:
    features = clusters(5)
    layout = first(features)

    check_well_formed(follow(features[::-1].copy(), layout, features), 5)
