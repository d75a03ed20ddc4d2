"""Registry, followers and run selections, with real sockets and fake trainings in processes."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from revacnn_lightning.client import run_messages as run_messages_module
from revacnn_lightning.client.attach import attach
from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol import base_socket
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters
from revacnn_lightning.protocol.run_discovery import list_runs
from tests.client.keyed_run import KeyedRun
from tests.viewer.processes import training, wait_for
from viewer.runs import registry as registry_module
from viewer.runs import run_follower as run_follower_module
from viewer.runs.registry import RunRegistry
from viewer.runs.run_follower import RunFollower
from viewer.tab.run_selection import RunSelection


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(registry_module, "DISCOVERY_SECONDS", 0.05)
    return tmp_path


@pytest.fixture
def registry(runtime: Path) -> Iterator[RunRegistry]:
    registry = RunRegistry()
    yield registry
    registry.close()


@pytest.fixture
def selection(registry: RunRegistry) -> RunSelection:
    """The run selection of a tab opened before any run."""
    return RunSelection(registry.placeholder, registry)


def tick(selection: RunSelection) -> RunFollower:
    assert selection.registry is not None
    selection.registry.tick()
    selection.update()
    return selection.follower


def wait_for_health(selection: RunSelection, kind: str) -> None:
    what = f"{kind}, not {selection.follower.run_status()}"
    wait_for(lambda: tick(selection).run_status().kind == kind, what=what)


def wait_for_snapshots(selection: RunSelection, n_filters: int = 0) -> None:
    def has_snapshots() -> bool:
        state = tick(selection).state
        if state is None or state.values_revision <= 2:
            return False
        return not n_filters or state.n_filters == n_filters

    wait_for(has_snapshots, what="snapshots")


def test_follower_waits_attaches_and_reports_the_end(
    selection: RunSelection, runtime: Path
) -> None:
    assert tick(selection).run_status().kind == "waiting"
    assert "No training" in selection.problem
    with training(runtime, "--net", "digits", "--end-after", "2"):
        wait_for_snapshots(selection)
        assert selection.follower.run_status().kind == "training"
        wait_for_health(selection, "finished")
    state = tick(selection).state
    assert state is not None
    assert state.n_filters == 40  # the last state remains
    assert "finished at batch" in selection.follower.run_status().text
    assert [one.run for one in selection.available_runs()] == [selection.follower.run_id]


def test_failed_run(selection: RunSelection, runtime: Path) -> None:
    with training(runtime, "--net", "digits", "--end-after", "1", "--end", "failed"):
        wait_for_health(selection, "failed")


def test_killed_run_remains_and_the_next_is_offered(
    selection: RunSelection, registry: RunRegistry, runtime: Path
) -> None:
    with training(runtime, "--net", "digits") as process:
        wait_for_snapshots(selection)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_health(selection, "gone")
    text = selection.follower.run_status().text
    expected = r"exited unexpectedly; last message at \d\d:\d\d:\d\d at batch \d+"
    assert re.fullmatch(expected, text)
    assert selection.next_run() is None
    killed = selection.follower
    with training(runtime, "--net", "alexnet"):
        wait_for(
            lambda: tick(selection) is killed and selection.next_run() is not None,
            what="a next run",
        )
        next_run = selection.next_run()
        assert next_run is not None
        assert next_run.model == "AlexNet"
        late = RunSelection(registry.placeholder, registry)  # of a page opened only now
        wait_for_snapshots(late, 1152)
        selection.select(next_run.run)
        wait_for_snapshots(selection, 1152)
        assert selection.follower is late.follower


def test_two_runs_side_by_side(
    selection: RunSelection, registry: RunRegistry, runtime: Path
) -> None:
    with training(runtime, "--net", "digits"):
        wait_for_snapshots(selection, 40)
        with training(runtime, "--net", "alexnet"):
            wait_for(lambda: bool(tick(selection)) and len(registry.live) == 2, what="two runs")
            state = selection.follower.state
            assert state is not None
            assert state.n_filters == 40  # a newer run does not replace the selected one
            newest = registry.live[0].run
            other = RunSelection(registry.placeholder, registry, requested_run=newest)
            wait_for_snapshots(other, 1152)
            before = state.values_revision

            def has_new_snapshots() -> bool:
                tick(selection)
                return state.values_revision > before + 3

            wait_for_snapshots(selection, 40)
            wait_for(has_new_snapshots, what="snapshots of both")
            again = RunSelection(registry.placeholder, registry, requested_run=newest)
            again.update()
            assert again.follower is other.follower  # shared by all tabs


def test_requested_run_is_found_before_the_next_discovery(
    selection: RunSelection, registry: RunRegistry, runtime: Path
) -> None:
    with training(runtime, "--net", "digits"):
        wait_for_snapshots(selection, 40)
        with training(runtime, "--net", "alexnet"):
            wait_for(lambda: len(list_runs()) == 2, what="a second run")
            (new,) = {one.run for one in list_runs()} - {selection.follower.run_id}
            assert new not in {one.run for one in registry.live}  # not discovered yet
            late = RunSelection(registry.placeholder, registry, requested_run=new)
            late.update()
            assert late.follower.run_id == new


def test_unused_run_is_detached(
    selection: RunSelection,
    registry: RunRegistry,
    runtime: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry_module, "UNUSED_SECONDS", 0.3)
    with training(runtime, "--net", "digits"):
        wait_for_snapshots(selection, 40)
        first = selection.follower.run_id
        with training(runtime, "--net", "alexnet"):
            wait_for(lambda: bool(tick(selection)) and len(registry.live) == 2, what="two runs")
            newest = registry.live[0].run
            other = RunSelection(registry.placeholder, registry, requested_run=newest)
            wait_for_snapshots(other, 1152)
            unused = other.follower.run_id

            def followed_runs() -> set[str]:
                registry.tick()  # without marking a run as shown
                return {follower.run_id for follower in registry.followers()}

            wait_for(lambda: unused not in followed_runs(), what="detaching the unused run")
            assert followed_runs() == {first}  # the first run is always followed


def test_unknown_requested_run_falls_back_to_the_newest(
    registry: RunRegistry, runtime: Path
) -> None:
    selection = RunSelection(registry.placeholder, registry, requested_run="0123456789ab")
    with training(runtime, "--net", "digits"):
        wait_for_snapshots(selection, 40)
    selection.select("nobody")
    assert selection.follower.state is not None


def test_requests_and_previews(selection: RunSelection, runtime: Path) -> None:
    with pytest.raises(ProtocolError, match="no training"):
        selection.follower.request(AddFilters("conv1"), "add", 0)
    with pytest.raises(ProtocolError, match="no training"):
        selection.follower.preview(AddFilters("conv1"), 0)
    with training(runtime, "--net", "digits"):
        wait_for_snapshots(selection)
        follower, state = selection.follower, selection.follower.state
        assert state is not None
        preview = follower.preview(RemoveFilters("conv2", [3]), 0)
        request = follower.request(RemoveFilters("conv2", [3]), "Remove conv2 · filter 3", 0)
        stale = follower.request(RemoveFilters("conv2", [3]), "again", 0)
        records, plans = state.requests.records, state.requests.plans

        def has_replies() -> bool:
            tick(selection)
            return preview in plans and records[stale].state != "sent"

        wait_for(has_replies, what="replies")
        assert records[request].state == "applied"
        assert "version 1" in records[stale].text
        assert state.n_filters == 39


def test_missing_connection_file(runtime: Path, tmp_path: Path) -> None:
    with training(runtime, "--net", "digits"):
        wait_for(lambda: bool(list(runtime.glob("run-*.json"))), what="the connection file")
        (original,) = runtime.glob("run-*.json")
        copy = tmp_path / "sub" / "copied.json"
        registry = RunRegistry(copy)
        selection = RunSelection(registry.placeholder, registry)
        try:
            tick(selection)
            assert str(copy) in selection.problem
            copy.parent.mkdir()
            copy.write_bytes(original.read_bytes())
            copy.chmod(0o600)
            time.sleep(0.1)
            wait_for_snapshots(selection)
        finally:
            registry.close()


def test_silent_run(
    selection: RunSelection, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process: first nothing arrives, then its connection counts as lost."""
    monkeypatch.setattr(run_messages_module, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(base_socket, "HEARTBEAT_TIMEOUT_MS", 1500)
    with training(runtime, "--net", "digits") as process:
        wait_for_snapshots(selection)
        os.kill(process.pid, signal.SIGSTOP)
        wait_for_health(selection, "silent")
        text = selection.follower.run_status().text
        assert re.search(r"since \d\d:\d\d:\d\d at batch \d+$", text)
        assert selection.follower.run_status().refusal == ""  # it may only be slow
        wait_for_health(selection, "unreachable")
        text = selection.follower.run_status().refusal
        assert re.search(r"last message at \d\d:\d\d:\d\d at batch \d+\.$", text)
        os.kill(process.pid, signal.SIGCONT)
        wait_for_health(selection, "training")


def test_history_is_requested_from_a_run_that_has_trained_before(
    selection: RunSelection, runtime: Path
) -> None:
    with training(runtime, "--net", "digits", "--past", "3000"):

        def has_history() -> bool:
            state = tick(selection).state
            return state is not None and state.history_revision > 0

        wait_for(has_history, what="the history")
        wait_for_snapshots(selection)
    state = selection.follower.state
    assert state is not None
    assert state.history_revision == 1  # requested once
    assert state.histories.scalars.steps[0] == 1
    assert state.histories.scalars.steps[-1] > 3000


def test_a_tab_goes_on_with_the_run_that_resumes_its_run(
    selection: RunSelection, registry: RunRegistry, runtime: Path
) -> None:
    lineage = "c0ffee" * 2
    with training(runtime, "--net", "digits", "--past", "500", "--resume", lineage) as process:
        wait_for_snapshots(selection)
        killed = selection.follower
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_health(selection, "gone")
    with (
        training(runtime, "--net", "alexnet"),  # a stranger, and the newest
        training(runtime, "--net", "digits", "--past", "300", "--resume", lineage),
    ):
        wait_for(lambda: tick(selection) is not killed, what="the resumed run")
        wait_for_snapshots(selection, 42)  # with the edit of its past
        state = selection.follower.state
        assert state is not None
        assert state.resumes == killed.run_id
        wait_for(lambda: tick(selection).state.history_revision > 0, what="the history")
        steps = state.histories.scalars.steps
        assert steps[0] == 1
        assert steps[-1] < 500
        assert (np.diff(steps) > 0).all()


def test_a_run_that_another_one_continues_elsewhere_stays_shown_while_it_lives(
    selection: RunSelection, registry: RunRegistry, runtime: Path
) -> None:
    """Two runs may start from one checkpoint."""
    lineage = "c0ffee" * 2
    with training(runtime, "--net", "digits", "--past", "500", "--resume", lineage):
        wait_for_snapshots(selection)
        shown = selection.follower
        with training(runtime, "--net", "digits", "--past", "500", "--resume", lineage):
            wait_for(lambda: bool(tick(selection)) and len(registry.live) == 2, what="both")
            assert tick(selection) is shown


def test_a_run_that_refuses_the_key_is_not_said_to_be_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_follower_module, "UNREACHABLE_SECONDS", -1.0)
    keyed = KeyedRun()
    with attach(keyed.connection) as owner:
        follower = RunFollower(owner.share("observer", name="ann"))

        def wait_for_kind(kind: str) -> None:
            def has_kind() -> bool:
                follower.receive()
                return follower.run_status().kind == kind

            wait_for(has_kind, what=kind)

        try:
            wait_for_kind("unreachable")
            owner.revoke("ann")
            wait_for_kind("refused")
            refusal = "The training receives no changes now: the run does not admit the key 'ann'."
            assert follower.run_status().refusal == refusal
        finally:
            follower.close()
            keyed.close()
