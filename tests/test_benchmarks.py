"""The training loops of the benchmarks do what the callback needs of Lightning."""

from __future__ import annotations

import itertools
from contextlib import closing

import pytest
import torch
import torch.nn.modules.module as module_internals

from benchmarks.advice_networks import plain
from benchmarks.advice_removals import float64_copy, removal_output_change
from benchmarks.call_counts import LIMITS, VARIANTS, extra_step_counts, narrow_network
from benchmarks.steered_runs import SteeredRun, is_prediction_right
from benchmarks.training_loops import MonitoredTraining, convnet


def test_a_monitored_training_records_what_its_client_receives() -> None:
    with closing(MonitoredTraining(convnet())) as training:
        training.begin_block()
        for _ in range(3):
            training.step()
        assert training.session.is_recording
        assert "training_step" not in vars(training.trainer.strategy)  # recorded, and restored
        training.end_block()


@pytest.mark.parametrize("variant", ["default", "all", "no viewer"])
def test_a_monitored_step_calls_and_dispatches_little(variant: str) -> None:
    """The figures are exact: what exceeds them is a call that each training pays for."""
    torch.set_num_threads(1)
    counts, limit = extra_step_counts(narrow_network(), **VARIANTS[variant]), LIMITS[variant]
    assert counts.calls <= limit.calls
    assert counts.operations <= limit.operations


def test_the_exact_comparison_shows_that_a_live_filter_was_removed() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 5, (4, 1, 16, 16)).double() / 4
    exact = float64_copy(plain().eval())
    assert removal_output_change(exact, "3", images, 1) > 0.1
    with torch.no_grad():
        for values in exact[3].parameters():
            values[1] = 0
    assert removal_output_change(exact, "3", images, 1) == 0


@pytest.mark.parametrize(
    ("predicted", "measured", "expected"),
    [(0.1, 0.19, True), (0.1, 0.21, False), (-0.1, 0.1, False), (0.0, 0.009, True), (1, 0, False)],
)
def test_a_prediction_is_right_within_a_factor_of_2_or_a_hundredth(
    predicted: float, measured: float, expected: bool
) -> None:
    assert is_prediction_right(predicted, measured) == expected


def test_a_steered_run_predicts_what_its_edits_bring() -> None:
    with closing(SteeredRun("plain", 0).outcomes()) as outcomes:
        *_, outcome = itertools.islice(outcomes, 4)
    assert outcome.predicted > 0.05  # three random filters
    assert is_prediction_right(outcome.predicted, outcome.same_images)
    assert is_prediction_right(outcome.predicted, outcome.held_out)
    assert not module_internals._global_forward_hooks
