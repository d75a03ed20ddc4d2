from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import Request, Snapshot
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters
from tests.viewer.conftest import DirectHub
from viewer.runs import run_state
from viewer.runs.run_state import RunState


def state_of(hub: DirectHub) -> RunState:
    assert hub.state is not None
    return hub.state


def apply(hub: DirectHub, edit: RemoveFilters | AddFilters) -> None:
    hub.request(edit, "an edit", hub.training.version)
    hub.deliver()


def test_values_are_found_by_layer(hub: DirectHub) -> None:
    state = state_of(hub)
    snapshot = state.snapshot
    assert isinstance(snapshot, Snapshot)
    np.testing.assert_array_equal(state.layer_values("activation", 1), snapshot.values[1, 8:24])
    np.testing.assert_allclose(
        state.layers["gradient"].rows[-1, 0], snapshot.values[0, :8].mean(), 1e-6
    )
    assert state.layer_index("conv3") == 2
    assert state.layer_index("conv9") is None


def test_snapshots_of_another_network_are_not_taken_over(hub: DirectHub) -> None:
    state = state_of(hub)
    before = state.numbers
    snapshot = hub.training.snapshot()
    state.take(replace(snapshot, version=7))
    state.take(replace(snapshot, values=snapshot.values[:, 1:]))
    state.take(replace(snapshot, statistics=["gradient"]))
    assert state.numbers == before


def test_histories_follow_the_filters_not_their_indices(hub: DirectHub) -> None:
    state = state_of(hub)
    before = state.filter_history("gradient", 1, 5).copy()
    other_layer = state.filter_history("activation", 2, 3).copy()
    apply(hub, RemoveFilters("conv2", [2, 4]))
    np.testing.assert_array_equal(state.filter_history("gradient", 1, 3), before)
    np.testing.assert_array_equal(state.filter_history("activation", 2, 3), other_layer)
    assert state.layer_values("gradient", 1).shape == (14,)
    hub.train()
    assert np.isfinite(state.filter_history("gradient", 1, 3)[-1])


def test_new_filters_have_no_past_and_are_marked(hub: DirectHub) -> None:
    state = state_of(hub)
    assert not state.new().any()
    apply(hub, AddFilters("conv1", 2))
    assert np.flatnonzero(state.new()).tolist() == [8, 9]
    assert np.isnan(state.filter_history("gradient", 0, 9)).all()
    hub.train()
    assert np.isfinite(state.filter_history("gradient", 0, 9)[-1])
    assert [mark.version for mark in state.marks] == [1]


def test_an_old_structure_that_comes_late_is_ignored(hub: DirectHub) -> None:
    state = state_of(hub)
    old = hub.training.structure()
    apply(hub, AddFilters("conv1", 1))
    state.take(old)
    assert state.n_filters == 41


def test_the_topology_that_is_told_a_batch_after_the_structure_is_taken_over(
    hub: DirectHub,
) -> None:
    traced = hub.training.structure()
    refused = replace(traced.layers[0], edit_refusal="its filters reach the output")
    traced = replace(traced, layers=[refused, *traced.layers[1:]], edges=[(0, 1), (0, 2)])
    state = RunState(Connection("run", "", "", ""))
    state.take(replace(traced, layers=hub.training.structure().layers, edges=[]))
    shape = state.shape
    state.take(traced)
    assert state.structure == traced
    assert state.shape == shape + 1
    state.take(replace(traced, step=traced.step + 7))
    state.take(replace(traced, edges=[]))
    assert state.shape == shape + 1  # nothing new: what is pointed at stays where it is
    assert not state.marks
    assert not state.new().any()


def test_an_edited_network_is_no_chain_until_it_has_been_traced_anew(hub: DirectHub) -> None:
    state = RunState(Connection("run", "", "", ""))
    before = replace(hub.training.structure(), edges=[(0, 1), (0, 2)])
    state.take(before)
    for edited in (replace(before, version=1, edges=[]), replace(before, version=1, edges=[])):
        state.take(edited)
        assert state.structure is not None
        assert state.structure.version == 1
        assert state.structure.edges == [(0, 1), (0, 2)]
    state.take(replace(before, version=1, edges=[(0, 1), (1, 2)]))
    assert state.structure.edges == [(0, 1), (1, 2)]
    longer = [*before.layers, replace(before.layers[-1], name="inserted")]
    state.take(replace(before, version=2, edges=[], layers=longer))
    assert state.structure.edges == []


def test_dead_filters_are_those_silent_for_long(hub: DirectHub) -> None:
    hub.training.silence(3)
    state = state_of(hub)
    hub.train(run_state.DEAD_AFTER - 1)
    assert not state.dead()[3]
    hub.train()
    assert np.flatnonzero(state.dead()).tolist()[0] == 3


def test_replies_become_records_or_plans(hub: DirectHub) -> None:
    state = state_of(hub)
    plan_id = hub.preview(RemoveFilters("conv2", [1]), 0)
    good = hub.request(RemoveFilters("conv2", [1]), "Remove", 0)
    bad = hub.request(RemoveFilters("conv2", [99]), "Remove", 1)
    hub.deliver()
    assert state.plans[plan_id].plan.parameters_after < state.plans[plan_id].plan.parameters_before  # type: ignore[union-attr]
    assert state.records[good].state == "applied"
    assert state.records[good].text == "conv2: 15 filters"
    assert state.records[bad].state == "refused"
    assert "0 to 14" in state.records[bad].text


def test_everything_is_bounded(
    make_hub: Callable[..., DirectHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_state, "FILTER_BYTES", 4 * 2 * 40 * 16)
    hub = make_hub("digits", batches=400)
    state = state_of(hub)
    assert state.filters.length <= 16
    assert state.scalars.length == 400
    for _ in range(run_state.MAX_RECORDS + 5):
        hub.request(RemoveFilters("nowhere", [1]), "no", 0)
    assert len(state.records) == run_state.MAX_RECORDS
    for i in range(run_state.MAX_METRICS + 5):
        state.take(replace(hub.training.snapshot(), metrics={f"m{i}": 1.0}))
    assert len(state.metrics) == run_state.MAX_METRICS


def test_a_changing_number_of_parameter_groups(hub: DirectHub) -> None:
    state = state_of(hub)
    state.take(replace(hub.training.snapshot(), learning_rates=[0.1, 0.2]))
    assert state.learning_rates.width == 2
    np.testing.assert_allclose(state.learning_rates.rows[-1], [0.1, 0.2])
    state.take(replace(hub.training.snapshot(), learning_rates=[]))


def test_the_double_refuses_a_stale_request(hub: DirectHub) -> None:
    (reply,) = hub.training.answer(Request("x", AddFilters("conv1"), version=5))
    assert "version 0" in reply.reason  # type: ignore[attr-defined]


def test_a_statistic_that_is_thinned_out_keeps_its_last_measured_value(hub: DirectHub) -> None:
    state = state_of(hub)
    taken = hub.training.snapshot()
    gaps = taken.values.copy()
    gaps[1] = np.nan
    often = [1] * len(taken.statistics)
    state.take(replace(taken, sampling_intervals=[often[0], 4, *often[2:]], values=gaps))
    assert np.isfinite(state.latest[taken.statistics[1]]).all()
    state.take(replace(taken, sampling_intervals=often, values=gaps))
    assert np.isnan(state.latest[taken.statistics[1]]).all()
