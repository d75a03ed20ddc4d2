"""The loss and the metrics before and after an edit."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.messages import Snapshot
from revacnn_lightning.protocol.requests import AddFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_training import FakeTraining
from viewer.runs.edit_effects import WINDOW, EditEffect, EditEffects

SNAPSHOT = FakeTraining("digits").snapshot()


def snapshot(loss: float | None, **metrics: float) -> Snapshot:
    return replace(SNAPSHOT, loss=loss, metrics=metrics)


@pytest.fixture
def effects() -> EditEffects:
    return EditEffects()


def effect_of(effects: EditEffects, version: int) -> EditEffect:
    found = effects.effect_of(version)
    assert found is not None
    return found


def test_mean_and_spread_of_the_loss_are_those_of_the_nearest_batches(
    effects: EditEffects,
) -> None:
    losses = np.random.default_rng(0).uniform(1, 2, (2, 3 * WINDOW))
    for loss in losses[0]:
        effects.add(snapshot(loss))
    effects.begin_measuring(1)
    for loss in losses[1]:
        effects.add(snapshot(loss))
    effect = effect_of(effects, 1)
    before, after = losses[0][-WINDOW:], losses[1][:WINDOW]
    for level, values in ((effect.before["loss"], before), (effect.after["loss"], after)):
        assert level.mean == pytest.approx(values.mean())
        assert level.spread == pytest.approx(values.std(ddof=1))
    assert (effect.batches_before, effect.batches_after) == (WINDOW, WINDOW)


def test_snapshots_of_several_batches_count_as_so_many(effects: EditEffects) -> None:
    several = replace(snapshot(2.0), batch_count=8)
    effects.add(several)
    effects.begin_measuring(1)
    effects.add(several)
    assert not effect_of(effects, 1).after  # reported after 10 batches
    effects.add(several)
    effect = effect_of(effects, 1)
    assert (effect.batches_before, effect.batches_after) == (8, 16)
    assert effect.after["loss"].mean == 2.0
    for _ in range(9):
        effects.add(several)
    assert WINDOW <= effect_of(effects, 1).batches_after < WINDOW + 8


def test_the_windows_of_two_edits_do_not_overlap(effects: EditEffects) -> None:
    for version, loss in ((1, 3.0), (2, 2.0), (3, 1.0)):
        for _ in range(20):
            effects.add(snapshot(loss))
        effects.begin_measuring(version)
    assert effect_of(effects, 1).after["loss"].mean == 2.0
    assert effect_of(effects, 2).before["loss"].mean == 2.0
    assert effect_of(effects, 2).after["loss"].mean == 1.0
    assert effect_of(effects, 2).batches_after == 20


def test_edits_that_come_close_together_share_an_effect(effects: EditEffects) -> None:
    """One Apply of several changes sends them one after another, each at the next batch."""
    for _ in range(20):
        effects.add(snapshot(2.0))
    for version in (1, 2, 3):
        effects.begin_measuring(version)
        effects.add(snapshot(9.0))
    for _ in range(WINDOW):
        effects.add(snapshot(1.0))
    effect = effect_of(effects, 1)
    assert effect is effect_of(effects, 3)
    assert effect.n_edits == 3
    assert effect.before["loss"].mean == 2.0
    assert effect.after["loss"].mean < 2.0


def test_a_metric_counts_where_it_changes(effects: EditEffects) -> None:
    """It keeps its value until it is logged again, which may be an epoch later."""
    for acc in (0.5, 0.6):
        for _ in range(WINDOW):
            effects.add(snapshot(1.0, val_acc=acc))
    effects.begin_measuring(1)
    for _ in range(2 * WINDOW):
        effects.add(snapshot(1.0, val_acc=0.6))
    effect = effect_of(effects, 1)
    assert effect.before["val_acc"].mean == 0.6
    assert np.isnan(effect.before["val_acc"].spread)
    assert "val_acc" not in effect.after
    revision = effects.revision
    for acc in (0.7, 0.8):
        for _ in range(WINDOW):
            effects.add(snapshot(1.0, val_acc=acc))
    assert effect.after["val_acc"].mean == 0.7
    assert effects.revision == revision + 1


def test_values_that_are_not_finite_are_left_out(effects: EditEffects) -> None:
    for loss in (np.nan, 1.0, np.inf, 3.0, None):
        effects.add(snapshot(loss, acc=float("nan")))
    effects.begin_measuring(1)
    before = effect_of(effects, 1).before
    assert before["loss"].mean == 2.0
    assert "acc" not in before


def test_an_effect_is_reported_a_few_times_not_with_every_batch(effects: EditEffects) -> None:
    effects.begin_measuring(1)
    revisions = []
    for _ in range(4 * WINDOW):
        effects.add(snapshot(1.0, acc=0.5))
        revisions.append(effects.revision)
    assert len(set(revisions)) <= 4


def test_old_effects_are_dropped(effects: EditEffects) -> None:
    for version in range(1, 200):
        for _ in range(12):
            effects.add(snapshot(1.0))
        effects.begin_measuring(version)
    assert effects.effect_of(1) is None
    assert effects.effect_of(199) is not None


def test_the_effect_of_an_edit_of_a_run_is_measured(follower: InProcessFollower) -> None:
    state = follower.state
    assert state is not None
    follower.train(WINDOW)
    follower.request(AddFilters("conv1"), "add", 0)
    follower.deliver()
    follower.train(WINDOW)
    effect = state.edit_effects.effect_of(1)
    assert effect is not None
    assert effect.before.keys() == effect.after.keys() | {"val_acc", "val_loss"}
    assert effect.before["loss"].spread > 0
