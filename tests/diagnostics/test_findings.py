"""Findings that follow from the statistics of a batch."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.findings import DeadZeroNonfiniteCounter, describe_finding

NAMES, OFFSETS = ["conv1", "conv2"], np.array([0, 2, 5])


def test_filters_are_counted_by_layer():
    norms = np.array([0.0, 1.0, np.inf, np.nan, 0.0], np.float32)
    dead = np.array([True, True, False, False, True])
    assert DeadZeroNonfiniteCounter().count(NAMES, OFFSETS, norms, dead) == {
        "conv1": {"dead": 2, "zero": 1, "nonfinite": 0},
        "conv2": {"dead": 1, "zero": 1, "nonfinite": 2},
    }


def test_what_was_not_recorded_is_not_counted():
    dead = np.zeros(5, bool)
    assert DeadZeroNonfiniteCounter().count(NAMES, OFFSETS, None, None) == {
        "conv1": {},
        "conv2": {},
    }
    counts = DeadZeroNonfiniteCounter().count(NAMES, OFFSETS, None, dead)
    assert counts == {"conv1": {"dead": 0}, "conv2": {"dead": 0}}


def test_a_norm_that_was_never_measured_is_no_finding_and_one_that_becomes_nan_is():
    findings, unknown = DeadZeroNonfiniteCounter(), np.full(2, np.nan)
    before = np.concatenate([unknown, np.ones(3)])
    assert findings.count(NAMES, OFFSETS, before, None)["conv1"] == {}
    counts = findings.count(NAMES, OFFSETS, np.full(5, np.nan), None)
    assert counts == {"conv1": {}, "conv2": {"zero": 0, "nonfinite": 3}}


def test_the_page_and_the_loggers_use_the_same_words():
    assert describe_finding("zero", 2) == "2 all zero"
