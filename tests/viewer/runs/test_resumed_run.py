"""A run that resumes another one from a checkpoint continues its histories."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.requests import AddFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_training import FakeTraining
from viewer.runs.change_order import EditMark
from viewer.runs.resumed_run import describe_lost_progress, mask_ids_of_edited_layers
from viewer.runs.run_state import RunState

CHECKPOINT = 6  # batches before it


def resume(earlier: RunState) -> RunState:
    """Train on from a checkpoint after `CHECKPOINT` batches, in another process."""
    training = FakeTraining("digits")
    training.step = CHECKPOINT
    connection = Connection(training.run, "", "", "", first_step=CHECKPOINT)
    state = RunState(connection, earlier)
    state.receive(training.structure())
    for _ in range(4):
        state.receive(training.snapshot())
        training.step += 1
    return state


def test_curves_go_on_where_the_checkpoint_was(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    earlier = make_follower(batches=9).state
    assert earlier is not None
    before = earlier.filter_history("gradient", 1, 5).copy()
    scalars = earlier.histories.scalars.rows.copy()
    state = resume(earlier)
    histories = state.histories
    assert histories.scalars.steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(histories.scalars.rows[:5], scalars[:5])
    assert (np.diff(histories.scalars.rows[:, 3]) >= 0).all()  # the time runs forward
    np.testing.assert_array_equal(state.filter_history("gradient", 1, 5)[:5], before[:5])
    assert len(state.filter_history("gradient", 1, 5)) == 9
    assert histories.layer_names == ["conv1", "conv2", "conv3"]
    assert state.resumes == earlier.connection.run
    assert state.resume_note == "4 batches after the checkpoint are lost"
    assert earlier.histories.scalars.steps[-1] == 9  # to be compared with
    histories.add_metrics(9, {"val_acc": 0.4})
    assert histories.clock.epochs(np.array([9.0])) > 0


def test_filters_of_an_edited_layer_begin_from_scratch(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    """The resumed run numbers them from 0 again, so an id would mean another filter."""
    follower = make_follower(batches=3)
    follower.request(AddFilters("conv2"), "an edit", 0)
    follower.deliver()
    follower.train(3)
    assert follower.state is not None
    state = resume(follower.state)
    assert np.isnan(state.filter_history("gradient", 1, 5)[:5]).all()
    assert np.isfinite(state.filter_history("gradient", 0, 5)[:5]).all()


def test_of_a_run_that_nobody_has_shown_for_long_only_the_curves_are_left(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    earlier = make_follower(batches=9).state
    assert earlier is not None
    earlier.histories.drop_filter_history()
    state = resume(earlier)
    assert state.histories.scalars.steps[0] == 1
    assert state.filter_history("gradient", 1, 5).shape == (4,)


def test_what_is_lost_is_counted() -> None:
    marks = [EditMark(3, 1), EditMark(7, 2), EditMark(8, 3)]
    assert describe_lost_progress(8, marks, 9) == ""
    assert describe_lost_progress(9, [], 9) == "1 batch after the checkpoint is lost"
    assert (
        describe_lost_progress(9, marks, 8) == "2 batches and 1 edit after the checkpoint are lost"
    )
    assert describe_lost_progress(None, [], 9) == ""


def test_layers_of_other_ids_are_unknown() -> None:
    before = FakeTraining("digits").structure()
    layers = list(before.layers)
    layers[1] = replace(layers[1], filter_ids=[0, 2])
    kept = mask_ids_of_edited_layers(before, replace(before, layers=layers))
    assert kept.layers[0] == before.layers[0]
    assert set(kept.layers[1].filter_ids) == {-1}
