"""Verdicts follow from the figures, and a healthy network gets none."""

from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.diagnostics.verdict_window import VerdictWindow
from revacnn_lightning.diagnostics.verdicts import (
    MIN_BATCHES,
    RESTLESS,
    dormancy_scores,
    judge_gradient_flow,
    judge_nonfinite_origin,
    judge_weight_updates,
    mean_magnitudes,
)

LAYERS, OFFSETS = ["a", "b"], np.array([0, 4, 7])
RANDOM = np.random.default_rng(0)


def healthy(**changes: np.ndarray) -> dict[str, np.ndarray]:
    rows = {
        "activation": RANDOM.uniform(0.5, 1.5, 7),
        "gradient": RANDOM.uniform(0.5, 1.5, 7),
        "update_ratio": RANDOM.uniform(0.0005, 0.002, 7),
    }
    return rows | changes


def window_of(n_batches: int, first_step: int = 0, **changes: np.ndarray) -> VerdictWindow:
    window = VerdictWindow()
    window.update_structure(LAYERS, OFFSETS, np.full(7, -1))
    for step in range(first_step, first_step + n_batches):
        window.add(step, healthy(**changes))
    return window


def test_a_layer_that_has_never_moved_has_not_converged() -> None:
    """As a frozen layer that a viewer sees from the middle of the run."""
    assert judge_weight_updates("a", 0.0, 0.0, 0.0, is_complete=False) is None


def kinds(window: VerdictWindow, **options: np.ndarray) -> dict[str, str]:
    return {one.kind: one.layer for one in window.verdicts(**options)}


def test_dormancy_is_relative_to_the_layer():
    activations = np.array([[4.0, -4.0, 0.1, 0.0], [4.0, -4.0, np.nan, 0.0]])
    score = dormancy_scores(mean_magnitudes(activations))
    np.testing.assert_allclose(score, np.array([4, 4, 0.1, 0]) / 2.025)
    assert np.isnan(dormancy_scores(mean_magnitudes(np.zeros((2, 3))))).all()


@pytest.mark.parametrize(
    ("level", "moved", "peak", "is_complete", "kind"),
    [
        (1e-3, 0.1, 1e-3, True, "untrained"),
        (1e-3, 0.1, 1e-3, False, None),  # unrecorded steps may have moved it
        (1e-3, 5.0, 1e-3, True, None),
        (0.1, 5.0, 0.1, True, "restless"),
        (1e-6, 5.0, 1e-3, True, "converged"),
    ],
)
def test_movement(level, moved, peak, is_complete, kind):
    verdict = judge_weight_updates("a", level, moved, peak, is_complete=is_complete)
    assert (None if verdict is None else verdict.kind) == kind


@pytest.mark.parametrize(
    ("first", "kind"), [(1e-9, "vanishing"), (1e9, "exploding"), (0.01, None), (np.nan, None)]
)
def test_depth(first, kind):
    verdict = judge_gradient_flow(["a", "b", "c"], np.array([[first, np.nan, 1.0]] * 3))
    assert (None if verdict is None else verdict.kind) == kind


def test_the_origin_of_nan():
    good, bad = np.ones(3), np.array([1, np.nan, np.inf])
    forward = judge_nonfinite_origin(["a", "b", "c"], [good, bad, bad], [bad, bad, bad])
    assert (forward.layer, forward.filters, forward.remedy) == ("b", (1, 2), "undo")
    backward = judge_nonfinite_origin(["a", "b", "c"], [good] * 3, [bad, bad, good])
    assert (backward.layer, backward.confidence) == ("b", 1.0)
    assert judge_nonfinite_origin(["a"], [good], [good]) is None


def test_a_healthy_network_has_no_verdict_but_that_it_is_new():
    assert kinds(window_of(60, first_step=100)) == {}
    assert set(kinds(window_of(60))) == {"untrained"}  # 60 steps of 0.1 %


def test_nothing_can_be_told_before_enough_batches():
    (verdict,) = window_of(MIN_BATCHES - 1).verdicts()
    assert not verdict.is_known
    assert verdict.evidence.startswith("1 more")


def test_verdicts_are_ordered_by_what_acting_is_worth():
    activation = np.array([1, 1, 0.001, 0, np.nan, np.nan, np.nan])
    window = window_of(60, first_step=9, activation=activation)
    dead = activation == 0
    found = window.verdicts(dead)
    assert [(one.kind, one.filters, one.remedy) for one in found] == [
        ("dead", (3,), "remove"),
        ("dormant", (2,), "reinitialize"),
    ]


def test_the_busiest_filter_is_the_most_active_one_that_counts():
    activation = np.array([1, 5, -9, 2, np.nan, 3, np.nan])
    frozen = window_of(30, activation=activation).frozen_copy()
    assert frozen.most_active_filter("a", []) == 2
    assert frozen.most_active_filter("a", [2]) == 1
    assert frozen.most_active_filter("b", []) == 1
    assert frozen.most_active_filter("gone", []) == -1
    assert window_of(30, activation=np.zeros(7)).frozen_copy().most_active_filter("a", []) == -1


def test_nan_of_a_layer_that_was_never_measured_is_no_verdict():
    activation = np.array([1, 1, 1, 1, np.nan, np.nan, np.nan])
    window = window_of(30, first_step=9, activation=activation)
    assert kinds(window) == {}
    window.add(39, healthy())  # now it is measured
    window.add(40, healthy(activation=activation))
    assert kinds(window) == {"nonfinite": "b"}
    window.add(41, healthy())
    assert kinds(window) == {}


def test_an_edit_keeps_how_far_filters_have_moved():
    window = window_of(60, update_ratio=np.full(7, 0.01))
    window.update_structure(LAYERS, np.array([0, 3, 6]), np.array([0, 1, 3, 4, 5, 6]))
    for step in range(60, 60 + MIN_BATCHES):
        window.add(step, {name: row[:6] for name, row in healthy().items()})
    assert kinds(window) == {}


def test_the_median_movement_of_a_wide_layer_is_about_that_of_all_filters() -> None:
    ratios = np.linspace(1e-3, 2 * RESTLESS + 2e-3, 1000)
    for factor, expected in ((0.9, None), (1.1, "restless")):
        window = VerdictWindow()
        window.update_structure(["wide"], np.array([0, 1000]), np.full(1000, -1))
        for step in range(30):
            row = (ratios * factor).astype(np.float32)
            window.add(step, {"activation": row, "gradient": row, "update_ratio": row})
        assert kinds(window).get("restless") == (None if expected is None else "wide")


def test_the_mean_gradient_of_a_layer_is_that_of_its_own_filters() -> None:
    window = window_of(25, gradient=np.array([1, 2, 3, 4, np.nan, 6, 7], np.float32))
    means = window.frozen_copy()._layer_means("gradient")
    parts = np.split(np.array([1, 2, 3, 4, np.nan, 6, 7]), OFFSETS[1:-1])
    np.testing.assert_allclose(means, [[part.mean() for part in parts]] * 25)


def test_what_is_judged_in_another_thread_does_not_change_while_batches_arrive() -> None:
    window, twin = window_of(60), window_of(60)
    frozen = window.frozen_copy()
    expected = frozen.judge().verdicts
    for step in range(60, 120):
        window.add(step, healthy(activation=np.zeros(7), update_ratio=np.full(7, 0.5)))
    assert frozen.judge().verdicts == expected
    window.update_structure(["other"], np.array([0, 1]), np.array([0]))
    assert frozen.judge().verdicts == expected
    assert kinds(twin) == {one.kind: one.layer for one in expected}


def test_peaks_are_those_of_all_windows_that_were_judged() -> None:
    window = window_of(60, first_step=9, update_ratio=np.full(7, 0.01))
    judgment = window.frozen_copy().judge()
    assert judgment.update_levels == pytest.approx({"a": 0.01, "b": 0.01})
    for step in range(69, 129):
        window.add(step, healthy(update_ratio=np.full(7, 1e-5)))
    assert "converged" not in kinds(window)  # no window with larger steps was noted
    window.record_levels(judgment)
    assert "converged" in kinds(window)
