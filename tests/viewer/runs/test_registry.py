"""What the registry keeps of runs, without sockets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from revacnn_lightning.protocol.connection_file import Connection
from tests.viewer.conftest import InProcessFollower
from viewer.runs import registry as registry_module
from viewer.runs.registry import MAX_ENDED_RUNS, RunRegistry

MakeFollower = Callable[..., InProcessFollower]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> RunRegistry:
    """A registry that finds no live run and detaches from unused ones immediately."""
    monkeypatch.setattr(registry_module, "DISCOVERY_SECONDS", 0.0)
    monkeypatch.setattr(registry_module, "UNUSED_SECONDS", -1.0)
    monkeypatch.setattr(registry_module, "list_runs", list)
    return RunRegistry()


def follow(registry: RunRegistry, make_follower: MakeFollower, run: str, kind: str) -> None:
    follower = make_follower(batches=2)
    follower.kind = kind
    assert follower.state is not None
    follower.state.connection = Connection(run, "", "", "")
    registry._followers[run] = follower


def test_curves_of_a_run_remain_after_it_has_ended_and_nothing_shows_it(
    registry: RunRegistry, make_follower: MakeFollower
) -> None:
    follow(registry, make_follower, "a", "finished")
    registry.tick()
    assert registry.followers() == []
    assert [one.run for one in registry.known_runs()] == ["a"]
    state = registry.state("a")
    assert state is not None
    assert state.histories.scalars.length == 2
    assert state.histories.filters.length == 0  # by far the largest


def test_a_run_that_goes_on_is_not_kept_when_nothing_shows_it(
    registry: RunRegistry, make_follower: MakeFollower
) -> None:
    follow(registry, make_follower, "a", "training")
    registry.tick()
    assert registry.state("a") is None


def test_the_oldest_ended_runs_are_dropped(
    registry: RunRegistry, make_follower: MakeFollower
) -> None:
    names = [f"run{i}" for i in range(MAX_ENDED_RUNS + 2)]
    for name in names:
        follow(registry, make_follower, name, "finished")
        registry.tick()
    known = [one.run for one in registry.known_runs()]
    assert known == list(reversed(names[2:]))


def test_a_compared_run_stays_attached(
    registry: RunRegistry, make_follower: MakeFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "UNUSED_SECONDS", 60.0)
    follow(registry, make_follower, "a", "training")
    registry.followers()[0].last_shown = 0.0
    registry.keep_following("a")
    registry.keep_following("unknown")
    registry.tick()
    assert [one.run for one in registry.known_runs()] == ["a"]


def test_a_run_of_another_protocol_version_is_named(
    registry: RunRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "the run of run-a.json uses protocol 99"
    monkeypatch.setattr(
        registry_module, "find_unusable_connection_files", lambda: {"run-a.json": reason}
    )
    registry.tick()
    assert registry.problem == f"A training cannot be shown: {reason}."
