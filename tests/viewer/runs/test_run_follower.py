"""Runs and their followers with real sockets and made-up trainings in other processes."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol import connection as connections
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters
from tests.viewer.processes import training, wait_for
from viewer.runs import registry as runs_module
from viewer.runs import run_follower as run_follower_module
from viewer.runs.registry import RunRegistry
from viewer.runs.run_follower import RunFollower
from viewer.tab.run_selection import RunSelection


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(runs_module, "DISCOVERY_SECONDS", 0.05)
    return tmp_path


@pytest.fixture
def runs(runtime: Path) -> Iterator[RunRegistry]:
    runs = RunRegistry()
    yield runs
    runs.close()


@pytest.fixture
def choice(runs: RunRegistry) -> RunSelection:
    """What a tab that was opened before any run shows."""
    return RunSelection(runs.placeholder, runs)


def tick(choice: RunSelection) -> RunFollower:
    assert choice.registry is not None
    choice.registry.tick()
    choice.update()
    return choice.follower


def until(choice: RunSelection, kind: str) -> None:
    what = f"{kind}, not {choice.follower.health()}"
    wait_for(lambda: tick(choice).health().kind == kind, what=what)


def until_numbers(choice: RunSelection, filters: int = 0) -> None:
    def reached() -> bool:
        state = tick(choice).state
        enough = state is not None and state.values_revision > 2
        return enough and (not filters or state.n_filters == filters)  # type: ignore[union-attr]

    wait_for(reached, what="numbers")


def test_it_waits_attaches_and_tells_the_end(choice: RunSelection, runtime: Path) -> None:
    assert tick(choice).health().kind == "waiting"
    assert "No training" in choice.problem
    with training(runtime, "--net", "digits", "--end-after", "2"):
        until_numbers(choice)
        assert choice.follower.health().kind == "training"
        until(choice, "finished")
    state = tick(choice).state
    assert state is not None
    assert state.n_filters == 40  # the last picture stays
    assert "finished at batch" in choice.follower.health().text
    assert [one.run for one in choice.available_runs()] == [choice.follower.run_id]


def test_a_run_that_fails(choice: RunSelection, runtime: Path) -> None:
    with training(runtime, "--net", "digits", "--end-after", "1", "--end", "failed"):
        until(choice, "failed")


def test_a_killed_run_stays_and_the_next_one_is_offered(
    choice: RunSelection, runs: RunRegistry, runtime: Path
) -> None:
    with training(runtime, "--net", "digits") as process:
        until_numbers(choice)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until(choice, "gone")
    text = choice.follower.health().text
    assert re.fullmatch(
        r"process exited unexpectedly; last message at \d\d:\d\d:\d\d at batch \d+", text
    )
    assert choice.next_run() is None
    killed = choice.follower
    with training(runtime, "--net", "alexnet"):
        wait_for(lambda: tick(choice) is killed and choice.next_run() is not None, what="an offer")
        offered = choice.next_run()
        assert offered is not None
        assert offered.model == "AlexNet"
        late = RunSelection(runs.placeholder, runs)  # a page that is opened only now
        until_numbers(late, 1152)
        choice.select(offered.run)
        until_numbers(choice, 1152)
        assert choice.follower is late.follower


def test_two_runs_at_once_are_shown_side_by_side(
    choice: RunSelection, runs: RunRegistry, runtime: Path
) -> None:
    with training(runtime, "--net", "digits"):
        until_numbers(choice, 40)
        with training(runtime, "--net", "alexnet"):
            wait_for(lambda: bool(tick(choice)) and len(runs.live) == 2, what="two runs")
            assert choice.follower.state is not None
            assert choice.follower.state.n_filters == 40  # a newer run does not steal the page
            other = RunSelection(runs.placeholder, runs, requested_run=runs.live[0].run)
            until_numbers(other, 1152)
            before = choice.follower.state.values_revision
            until_numbers(choice, 40)
            wait_for(
                lambda: tick(choice).state.values_revision > before + 3,  # type: ignore[union-attr]
                what="numbers of both",
            )
            again = RunSelection(runs.placeholder, runs, requested_run=runs.live[0].run)
            again.update()
            assert again.follower is other.follower  # one for all tabs that show the run


def test_a_page_that_names_a_run_that_has_just_begun_shows_it(
    choice: RunSelection, runs: RunRegistry, runtime: Path
) -> None:
    with training(runtime, "--net", "digits"):
        until_numbers(choice, 40)
        with training(runtime, "--net", "alexnet"):
            wait_for(lambda: len(connections.list_runs()) == 2, what="a second run")
            (begun,) = {one.run for one in connections.list_runs()} - {choice.follower.run_id}
            assert begun not in {one.run for one in runs.live}  # nobody has looked since
            late = RunSelection(runs.placeholder, runs, requested_run=begun)
            late.update()
            assert late.follower.run_id == begun


def test_a_run_that_nobody_looks_at_is_let_go(
    choice: RunSelection, runs: RunRegistry, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "UNUSED_SECONDS", 0.3)
    with training(runtime, "--net", "digits"):
        until_numbers(choice, 40)
        followed = choice.follower.run_id
        with training(runtime, "--net", "alexnet"):
            wait_for(lambda: bool(tick(choice)) and len(runs.live) == 2, what="two runs")
            other = RunSelection(runs.placeholder, runs, requested_run=runs.live[0].run)
            until_numbers(other, 1152)
            closed, held = other.follower.run_id, set()

            def let_go() -> bool:
                runs.tick()  # and no tab says that it still shows something
                held.clear()
                held.update(runs._followers)
                return closed not in held

            wait_for(let_go, what="the run that nobody shows is let go")
            assert held == {followed}  # the one that is followed for whoever comes


def test_a_wanted_run_that_is_not_there_any_more(runs: RunRegistry, runtime: Path) -> None:
    choice = RunSelection(runs.placeholder, runs, requested_run="0123456789ab")
    with training(runtime, "--net", "digits"):
        until_numbers(choice, 40)
    choice.select("nobody")
    assert choice.follower.state is not None


def test_requests_and_previews(choice: RunSelection, runtime: Path) -> None:
    with pytest.raises(ProtocolError, match="no training"):
        choice.follower.request(AddFilters("conv1"), "add", 0)
    with pytest.raises(ProtocolError, match="no training"):
        choice.follower.preview(AddFilters("conv1"), 0)
    with training(runtime, "--net", "digits"):
        until_numbers(choice)
        follower, state = choice.follower, choice.follower.state
        assert state is not None
        preview = follower.preview(RemoveFilters("conv2", [3]), 0)
        request = follower.request(RemoveFilters("conv2", [3]), "Remove conv2 · filter 3", 0)
        stale = follower.request(RemoveFilters("conv2", [3]), "again", 0)

        def answered() -> bool:
            tick(choice)
            return preview in state.requests.plans and state.requests.records[stale].state != "sent"

        wait_for(answered, what="replies")
        assert state.requests.records[request].state == "applied"
        assert "version 1" in state.requests.records[stale].text
        assert state.n_filters == 39


def test_a_connection_file_that_is_not_there_yet(runtime: Path, tmp_path: Path) -> None:
    with training(runtime, "--net", "digits"):
        wait_for(lambda: bool(list(runtime.glob("run-*.json"))), what="the connection file")
        (found,) = runtime.glob("run-*.json")
        wanted = tmp_path / "sub" / "copied.json"
        runs = RunRegistry(wanted)
        choice = RunSelection(runs.placeholder, runs)
        try:
            tick(choice)
            assert str(wanted) in choice.problem
            wanted.parent.mkdir()
            wanted.write_bytes(found.read_bytes())
            wanted.chmod(0o600)
            time.sleep(0.1)
            until_numbers(choice)
        finally:
            runs.close()


def test_silence_is_told(
    choice: RunSelection, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_follower_module, "SILENT_SECONDS", 0.5)
    with training(runtime, "--net", "digits") as process:
        until_numbers(choice)
        os.kill(process.pid, signal.SIGSTOP)
        until(choice, "silent")
        assert re.search(r"since \d\d:\d\d:\d\d at batch \d+$", choice.follower.health().text)
        os.kill(process.pid, signal.SIGCONT)
        until(choice, "training")
