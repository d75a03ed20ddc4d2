from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.history import run_history
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import (
    History,
    HistoryEdit,
    HistorySeries,
    Request,
    Snapshot,
)
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters
from tests.viewer.conftest import InProcessFollower
from viewer.runs import request_log, run_histories
from viewer.runs.run_state import RunState


def state_of(follower: InProcessFollower) -> RunState:
    assert follower.state is not None
    return follower.state


def apply(follower: InProcessFollower, edit: RemoveFilters | AddFilters) -> None:
    follower.request(edit, "an edit", follower.training.version)
    follower.deliver()


def test_layer_values(follower: InProcessFollower) -> None:
    state = state_of(follower)
    snapshot = state.snapshot
    assert isinstance(snapshot, Snapshot)
    np.testing.assert_array_equal(state.layer_values("activation", 1), snapshot.values[1, 8:24])
    np.testing.assert_allclose(
        state.histories.layers["gradient"].rows[-1, 0], snapshot.values[0, :8].mean(), 1e-6
    )
    assert state.layer_index("conv3") == 2
    assert state.layer_index("conv9") is None


def test_snapshots_of_another_version_are_ignored(follower: InProcessFollower) -> None:
    state = state_of(follower)
    before = state.values_revision
    snapshot = follower.training.snapshot()
    state.receive(replace(snapshot, version=7))
    state.receive(replace(snapshot, values=snapshot.values[:, 1:]))
    state.receive(replace(snapshot, statistics=["gradient"]))
    assert state.values_revision == before


def test_histories_follow_filter_ids_through_edits(follower: InProcessFollower) -> None:
    state = state_of(follower)
    before = state.filter_history("gradient", 1, 5).copy()
    other_layer = state.filter_history("activation", 2, 3).copy()
    apply(follower, RemoveFilters("conv2", [2, 4]))
    np.testing.assert_array_equal(state.filter_history("gradient", 1, 3), before)
    np.testing.assert_array_equal(state.filter_history("activation", 2, 3), other_layer)
    assert state.layer_values("gradient", 1).shape == (14,)
    follower.train()
    assert np.isfinite(state.filter_history("gradient", 1, 3)[-1])


def test_new_filters_have_no_history_and_are_marked(follower: InProcessFollower) -> None:
    state = state_of(follower)
    assert not state.new_filter_mask().any()
    apply(follower, AddFilters("conv1", 2))
    assert np.flatnonzero(state.new_filter_mask()).tolist() == [8, 9]
    assert np.isnan(state.filter_history("gradient", 0, 9)).all()
    follower.train()
    assert np.isfinite(state.filter_history("gradient", 0, 9)[-1])
    assert [mark.version for mark in state.requests.edit_marks] == [1]


def test_outdated_structure_is_ignored(follower: InProcessFollower) -> None:
    state = state_of(follower)
    outdated = follower.training.structure()
    apply(follower, AddFilters("conv1", 1))
    state.receive(outdated)
    assert state.n_filters == 41


def test_traced_edges_complete_a_known_structure(
    follower: InProcessFollower,
) -> None:
    traced = follower.training.structure()
    refused = replace(traced.layers[0], edit_refusal="its filters reach the output")
    traced = replace(traced, layers=[refused, *traced.layers[1:]], edges=[(0, 1), (0, 2)])
    state = RunState(Connection("run", "", "", ""))
    state.receive(replace(traced, layers=follower.training.structure().layers, edges=[]))
    revision = state.structure_revision
    state.receive(traced)
    assert state.structure == traced
    assert state.structure_revision == revision + 1
    state.receive(replace(traced, step=traced.step + 7))
    state.receive(replace(traced, edges=[]))
    assert state.structure_revision == revision + 1  # nothing new: the layout is kept
    assert not state.requests.edit_marks
    assert not state.new_filter_mask().any()


def test_edited_network_keeps_its_edges_until_it_is_traced_again(
    follower: InProcessFollower,
) -> None:
    state = RunState(Connection("run", "", "", ""))
    before = replace(follower.training.structure(), edges=[(0, 1), (0, 2)])
    state.receive(before)
    for edited in (replace(before, version=1, edges=[]), replace(before, version=1, edges=[])):
        state.receive(edited)
        assert state.structure is not None
        assert state.structure.version == 1
        assert state.structure.edges == [(0, 1), (0, 2)]
    state.receive(replace(before, version=1, edges=[(0, 1), (1, 2)]))
    assert state.structure.edges == [(0, 1), (1, 2)]
    longer = [*before.layers, replace(before.layers[-1], name="inserted")]
    state.receive(replace(before, version=2, edges=[], layers=longer))
    assert state.structure.edges == []


def test_a_filter_without_activation_for_a_while_is_dead(follower: InProcessFollower) -> None:
    follower.training.deactivate_filter(3)
    state = state_of(follower)
    follower.train(DEAD_BATCHES - 1)
    assert not state.dead_mask()[3]
    assert not state.dead_mask_at(state.histories.filters.length - 1)[3]
    follower.train()
    assert np.flatnonzero(state.dead_mask()).tolist()[0] == 3
    assert state.dead_mask_at(state.histories.filters.length - 1).tolist() == (
        state.dead_mask().tolist()
    )
    assert not state.dead_mask_at(5).any()


def test_replies_are_stored_as_records_or_plans(follower: InProcessFollower) -> None:
    state = state_of(follower)
    plan_id = follower.preview(RemoveFilters("conv2", [1]), 0)
    good = follower.request(RemoveFilters("conv2", [1]), "Remove", 0)
    bad = follower.request(RemoveFilters("conv2", [99]), "Remove", 1)
    follower.deliver()
    plan = state.requests.plans[plan_id].plan  # type: ignore[union-attr]
    assert plan.parameters_after < plan.parameters_before
    assert state.requests.records[good].state == "applied"
    assert state.requests.records[good].text == "conv2: 15 filters"
    assert state.requests.records[bad].state == "refused"
    assert "0 to 14" in state.requests.records[bad].text


def test_histories_and_records_are_bounded(
    make_follower: Callable[..., InProcessFollower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_histories, "FILTER_BYTES", 4 * 2 * 40 * 16)
    follower = make_follower("digits", batches=400)
    state = state_of(follower)
    assert state.histories.filters.length <= 16
    assert state.histories.scalars.length == 400
    for _ in range(request_log.MAX_RECORDS + 5):
        follower.request(RemoveFilters("nowhere", [1]), "no", 0)
    assert len(state.requests.records) == request_log.MAX_RECORDS
    for i in range(run_history.MAX_METRICS + 5):
        state.receive(replace(follower.training.snapshot(), metrics={f"m{i}": 1.0}))
    assert len(state.histories.metrics) == run_history.MAX_METRICS


def test_number_of_parameter_groups_may_change(follower: InProcessFollower) -> None:
    state = state_of(follower)
    follower.training.step += 1
    state.receive(replace(follower.training.snapshot(), learning_rates=[0.1, 0.2]))
    assert state.histories.learning_rates.width == 2
    np.testing.assert_allclose(state.histories.learning_rates.rows[-1], [0.1, 0.2])
    state.receive(replace(follower.training.snapshot(), learning_rates=[]))


def test_fake_training_refuses_a_stale_request(follower: InProcessFollower) -> None:
    (reply,) = follower.training.handle(Request("x", AddFilters("conv1"), version=5))
    assert "version 0" in reply.reason  # type: ignore[attr-defined]


def test_statistic_keeps_its_last_value_between_measurements(
    follower: InProcessFollower,
) -> None:
    state = state_of(follower)
    snapshot = follower.training.snapshot()
    values = snapshot.values.copy()
    values[1] = np.nan
    every_batch = [1] * len(snapshot.statistics)
    state.receive(replace(snapshot, sampling_intervals=[1, 4, *every_batch[2:]], values=values))
    assert np.isfinite(state.latest[snapshot.statistics[1]]).all()
    state.receive(replace(snapshot, sampling_intervals=every_batch, values=values))
    assert np.isnan(state.latest[snapshot.statistics[1]]).all()


def test_late_viewer_shows_the_run_since_its_first_batch(late_follower: InProcessFollower) -> None:
    state = state_of(late_follower)
    histories = state.histories
    for series in (histories.scalars, histories.layers["gradient"], histories.learning_rates):
        assert series.steps[0] == 1
        assert series.steps[-5:].tolist() == [1001, 1002, 1003, 1004, 1005]
        assert np.isfinite(series.rows).all()
    assert histories.metrics["val_acc"].steps[0] == 1
    assert histories.filters.steps[0] == 1001
    [mark] = state.requests.edit_marks
    assert (mark.step, mark.version, mark.title) == (500, 1, "Add 2 to conv2")


def test_edits_of_the_history_title_the_marks_of_this_viewer(
    follower: InProcessFollower,
) -> None:
    training, state = follower.training, state_of(follower)
    training.handle(Request("of another viewer", AddFilters("conv1"), 0))
    state.receive(training.structure())
    assert [mark.title for mark in state.requests.edit_marks] == [""]
    follower.receive_history()
    assert [mark.title for mark in state.requests.edit_marks] == ["Add 1 to conv1"]


def test_malformed_history_is_ignored(
    late_follower: InProcessFollower, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of(late_follower)
    revision = state.history_revision
    state.receive(History(scalars=HistorySeries([3, 2], [1, 1], np.zeros((2, 9), np.float32))))
    assert state.history_revision == revision
    assert "malformed history" in caplog.text


def test_what_was_missed_without_a_connection_is_filled_from_the_history(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower(batches=3)
    state, training = state_of(follower), follower.training
    state.note_interruption()
    training.train_unattended(100)
    training.handle(Request("edit", AddFilters("conv2"), training.version))
    follower.attach()
    follower.train(3)
    follower.receive_history()
    steps = state.histories.scalars.steps
    assert steps[:3].tolist() == [1, 2, 3]
    assert steps[-3:].tolist() == [104, 105, 106]
    assert ((steps > 3) & (steps < 104)).sum() > 10
    assert (np.diff(steps) > 0).all()
    assert [mark.step for mark in state.requests.edit_marks] == [103]
    follower.receive_history()
    assert len(state.requests.edit_marks) == 1


def test_marks_from_before_a_resume_are_told_apart(follower: InProcessFollower) -> None:
    requests = state_of(follower).requests
    edits = [HistoryEdit(1, "first"), HistoryEdit(2, "second"), HistoryEdit(2, "resumed")]
    for _ in range(2):
        requests.add_earlier_marks(edits)
        assert [mark.title for mark in requests.edit_marks] == ["first", "second", "resumed"]
