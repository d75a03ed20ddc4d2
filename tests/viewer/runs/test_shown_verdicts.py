"""Verdicts are computed beside the event loop, one computation at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from revacnn_lightning.history.network_verdicts import FrozenEvidence
from revacnn_lightning.protocol.requests import RemoveFilters
from tests.manual_clock import ManualClock
from tests.viewer.conftest import InProcessFollower
from tests.viewer.executors import HeldExecutor
from viewer.runs import shown_verdicts
from viewer.runs.shown_verdicts import REFRESH_SECONDS, ShownVerdicts


class Shown:
    """Verdicts that a tab shows, of a follower whose clock and thread the test controls."""

    def __init__(self, follower: InProcessFollower, clock: ManualClock) -> None:
        self.follower, self.clock = follower, clock
        self.executor = HeldExecutor()
        self.verdicts = ShownVerdicts(self.executor)
        self.verdicts.keep_computing()

    def tick(self) -> None:
        self.verdicts.tick(self.follower.state, lambda request: "")

    def known(self) -> list[bool]:
        assert self.follower.state is not None
        assert self.follower.state.structure is not None
        version = self.follower.state.structure.version
        return [one.is_known for one in self.verdicts.verdicts_for_version(version)]


@pytest.fixture
def shown(follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> Shown:
    clock = ManualClock()
    monkeypatch.setattr(shown_verdicts.time, "monotonic", clock)
    return Shown(follower, clock)


def test_a_result_is_adopted_on_the_loop_and_none_is_computed_twice(shown: Shown) -> None:
    for _ in range(3):
        shown.tick()
    assert (shown.executor.n_submitted, shown.known()) == (1, [])
    shown.executor.run()
    assert shown.known() == []
    shown.tick()
    assert (shown.known(), shown.verdicts.revision) == ([False], 1)  # more batches are needed
    shown.clock.now += REFRESH_SECONDS
    shown.verdicts.keep_computing()
    shown.tick()
    assert shown.executor.n_submitted == 1  # nothing is new
    shown.follower.train(MIN_BATCHES)
    shown.tick()
    shown.executor.run()
    shown.tick()
    assert shown.executor.n_submitted == 2
    assert all(shown.known())


def test_verdicts_that_no_tab_shows_are_not_computed(shown: Shown) -> None:
    shown.clock.now += 60
    shown.tick()
    assert shown.executor.n_submitted == 0


def test_new_batches_wait_and_an_edit_does_not(shown: Shown) -> None:
    shown.tick()
    shown.executor.run()
    shown.follower.train(1)
    shown.tick()
    assert shown.executor.n_submitted == 1
    state = shown.follower.state
    assert state is not None
    assert state.structure is not None
    shown.follower.request(RemoveFilters(state.structure.layers[0].name, [0]), "Remove", None)
    shown.follower.deliver()
    shown.tick()
    assert (shown.executor.n_submitted, shown.known()) == (2, [])  # those before are outdated
    shown.executor.run()
    shown.tick()
    assert shown.known() == [False]


def test_a_computation_that_fails_is_logged_and_the_next_one_is_tried(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(evidence: FrozenEvidence) -> Any:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(FrozenEvidence, "judge", fail)
        shown.tick()
        shown.executor.run()
        shown.tick()
    assert "ValueError: a bug" in shown.verdicts.problem
    assert "cannot be computed" in caplog.text
    shown.follower.train(1)
    shown.clock.now += REFRESH_SECONDS
    shown.verdicts.keep_computing()
    shown.tick()
    shown.executor.run()
    shown.tick()
    assert (shown.verdicts.problem, shown.known()) == ("", [False])


def test_verdicts_are_computed_in_another_thread(
    follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    judge = FrozenEvidence.judge

    def note(evidence: FrozenEvidence) -> Any:
        threads.append(threading.current_thread())
        return judge(evidence)

    monkeypatch.setattr(FrozenEvidence, "judge", note)
    verdicts = ShownVerdicts()
    verdicts.keep_computing()
    verdicts.tick(follower.state, lambda request: "")
    assert verdicts._work is not None
    verdicts._work.result(timeout=60)
    assert threads != [threading.current_thread()]
    verdicts.close()
