from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.dead_filters import (
    DEAD_BATCHES,
    MIN_RECORDED,
    DeadFilterTracker,
    find_dead_filters,
)

ALIVE, SILENT, UNMEASURED = 1.0, 0.0, np.nan


def after(*batches: list[float]) -> DeadFilterTracker:
    dead = DeadFilterTracker(len(batches[0]))
    for step, activation in enumerate(batches, 7):
        dead.add(step, np.array(activation, np.float32))
    return dead


def test_a_filter_that_is_silent_in_one_batch_is_not_dead():
    assert not after([SILENT]).mask().any()
    assert not after(*[[SILENT]] * (DEAD_BATCHES - 1)).mask().any()
    assert after(*[[SILENT]] * DEAD_BATCHES).mask().all()


def test_one_active_batch_ends_death_and_a_batch_that_was_not_measured_does_not_count():
    silent = [[SILENT, SILENT]] * (DEAD_BATCHES - 1)
    assert after(*silent, [SILENT, ALIVE]).mask().tolist() == [True, False]
    assert after(*silent, [UNMEASURED, SILENT], [SILENT, SILENT]).mask().tolist() == [True, True]
    unmeasured = [[UNMEASURED]] * DEAD_BATCHES
    assert not after(*unmeasured, [SILENT]).mask().any()


def test_negative_activations_are_activations():
    assert not after(*[[-0.2]] * DEAD_BATCHES).mask().any()


def test_filters_keep_their_count_through_an_edit_and_new_ones_begin():
    dead = after(*[[SILENT, ALIVE]] * DEAD_BATCHES)
    dead.reorder_filters(np.array([1, -1, 0]))
    assert dead.mask().tolist() == [False, False, True]
    dead.reorder_filters(np.zeros(0, np.int64))
    assert dead.mask().shape == (0,)


def test_of_a_sample_of_the_batches_all_must_be_silent():
    """A slow viewer skips batches, and the history of a run is a sample of them."""
    dead = DeadFilterTracker(2)
    for step, activation in ((0, [SILENT, SILENT]), (9, [SILENT, ALIVE]), (18, [SILENT, SILENT])):
        dead.add(step, np.array(activation))
    assert not dead.mask().any()
    assert not dead.is_known
    dead.add(DEAD_BATCHES - 1, np.array([SILENT, SILENT]))
    assert dead.is_known
    assert dead.mask().tolist() == [True, False]


def test_two_silent_batches_far_apart_prove_nothing():
    dead = DeadFilterTracker(1)
    for step in (0, 500):
        dead.add(step, np.array([SILENT]))
    assert MIN_RECORDED > 2
    assert not dead.mask().any()


def test_a_recording_says_what_was_tracked():
    random = np.random.default_rng(0)
    rows = (random.random((60, 200)) > np.linspace(0.5, 1, 200)).astype(np.float32)
    dead, steps = DeadFilterTracker(200), np.arange(60)
    for end, row in enumerate(rows, 1):
        dead.add(end - 1, row)
        np.testing.assert_array_equal(find_dead_filters(steps[:end], rows[:end]), dead.mask())
    assert dead.mask().any()
    means = rows.reshape(15, 4, 200).mean(axis=1)
    is_dead = find_dead_filters(steps[3::4], means)
    assert is_dead.any()
    assert not is_dead[~dead.mask()].any()
    assert not find_dead_filters(steps[:0], rows[:0]).any()
