"""Verdicts on a layer follow from what was measured, and say where that is not enough."""

from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.diagnostics.layer_verdicts import LayerMeasures, TwinGroup, judge_layer
from revacnn_lightning.diagnostics.layer_width import judge_excess_width, judge_narrowness

CLUSTERED = {
    "silhouette": 0.8, "hopkins": 0.9, "effective_rank": 0.3, "random_silhouette": 0.05,
    "random_effective_rank": 0.9,
}  # fmt: skip


def judge(**measures):
    return judge_layer("a", LayerMeasures(16, **measures), 64)


def test_a_layer_without_measures_has_no_verdict():
    assert judge() == []


def test_what_is_provably_dead_is_removed():
    (verdict,) = judge(provably_dead=[3, 5])
    assert (verdict.kind, verdict.filters, verdict.remedy) == ("provably_dead", (3, 5), "remove")
    assert (verdict.confidence, verdict.worth) == (1.0, 2 / 64)


def test_twins_are_merged():
    (verdict,) = judge(twins=[TwinGroup([1, 2], 0.97, [1.0, 0.4], 0.001, 0.0002)], samples=300)
    assert (verdict.kind, verdict.filters, verdict.remedy) == ("twins", (1, 2), "merge")
    assert "0.4 times as strong" in verdict.evidence
    assert "merged, the loss changes by +0.001" in verdict.evidence


def test_clusters_are_judged_only_once_the_layer_has_left_its_start():
    (verdict,) = judge(moved=0.5, redundant=[4], single_color=2, **CLUSTERED)
    assert (verdict.kind, verdict.filters, verdict.remedy) == ("degenerate", (4,), "reinitialize")
    assert "2 respond to a single color" in verdict.evidence
    assert (verdict.alternatives, verdict.busiest) == (("lower_rate",), ())
    (verdict,) = judge(moved=0.5, redundant=[4], busiest=7, **CLUSTERED)
    assert (verdict.alternatives, verdict.busiest) == (("lower_rate", "split"), (7,))
    (verdict,) = judge(moved=0.5, **CLUSTERED)
    assert (verdict.remedy, verdict.alternatives) == ("lower_rate", ())
    for moved in (0.1, float("nan")):
        (verdict,) = judge(moved=moved, **CLUSTERED)
        assert not verdict.is_known


@pytest.mark.parametrize("change", [{"silhouette": 0.2}, {"effective_rank": 0.8}])
def test_a_layer_with_one_sign_of_two_is_not_degenerate(change: dict[str, float]):
    assert judge(moved=0.5, **(CLUSTERED | change)) == []


def test_a_layer_is_too_wide_if_many_filters_cost_nothing():
    changes = np.array([0.5, 0.001, -0.2, np.nan, 0.4, 0.003, 0.9, 0.8])
    verdict = judge_excess_width("a", changes, 1.0, 16)
    assert verdict is not None
    assert (verdict.filters, verdict.remedy, verdict.worth) == ((1, 2, 5), "remove", 0.6 * 3 / 16)
    assert judge_excess_width("a", changes, 0.05, 16) is None  # one costs less than a hundredth
    assert judge_excess_width("a", np.full(8, np.nan), 1.0, 16) is None
    assert judge_excess_width("a", np.zeros(4), float("nan"), 16) is None
    everything = judge_excess_width("a", np.zeros(4), 1.0, 16)
    assert everything is not None
    assert len(everything.filters) == 3  # one is left


def test_a_layer_of_twice_the_usual_growth_gain_is_too_narrow() -> None:
    gains = np.array([0.1, 0.3, np.nan, 0.12], np.float32)
    verdict = judge_narrowness("b", 0.3, gains, 40)
    assert verdict is not None
    assert (verdict.kind, verdict.remedy, verdict.filters) == ("too_narrow", "add", ())
    assert "2.5 times the median of 3 layers" in verdict.evidence
    assert judge_narrowness("a", 0.1, gains, 40) is None
    assert judge_narrowness("c", float("nan"), gains, 40) is None
    assert judge_narrowness("b", 0.3, gains[:2], 40) is None  # of two layers, one is always first
    assert judge_narrowness("b", 0.0, np.zeros(4), 40) is None
