from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES, DeadFilters, find_dead

ALIVE, SILENT, UNMEASURED = 1.0, 0.0, np.nan


def after(*batches: list[float]) -> DeadFilters:
    dead = DeadFilters(len(batches[0]))
    for activation in batches:
        dead.add(np.array(activation, np.float32))
    return dead


def test_a_filter_that_is_silent_in_one_batch_is_not_dead():
    assert not after([SILENT]).mask().any()
    assert not after(*[[SILENT]] * (DEAD_BATCHES - 1)).mask().any()
    assert after(*[[SILENT]] * DEAD_BATCHES).mask().all()


def test_one_active_batch_ends_death_and_a_batch_that_was_not_measured_does_not_count():
    silent = [[SILENT, SILENT]] * (DEAD_BATCHES - 1)
    assert after(*silent, [SILENT, ALIVE]).mask().tolist() == [True, False]
    assert after(*silent, [UNMEASURED, SILENT]).mask().tolist() == [False, True]
    assert after(*silent, [UNMEASURED, SILENT], [SILENT, SILENT]).mask().tolist() == [True, True]


def test_negative_activations_are_activations():
    assert not after(*[[-0.2]] * DEAD_BATCHES).mask().any()


def test_filters_keep_their_count_through_an_edit_and_new_ones_begin():
    dead = after(*[[SILENT, ALIVE]] * DEAD_BATCHES)
    dead.remap(np.array([1, -1, 0]))
    assert dead.mask().tolist() == [False, False, True]
    dead.remap(np.zeros(0, np.int64))
    assert dead.mask().shape == (0,)


def test_a_recording_says_what_the_count_says():
    random = np.random.default_rng(0)
    rows = (random.random((60, 200)) > np.linspace(0.5, 1, 200)).astype(np.float32)
    dead = DeadFilters(200)
    for end, row in enumerate(rows, 1):
        dead.add(row)
        np.testing.assert_array_equal(find_dead(rows[:end], 1), dead.mask())
    means = rows.reshape(15, 4, 200).mean(axis=1)
    np.testing.assert_array_equal(find_dead(means, 4), dead.mask())
    assert dead.mask().any()
