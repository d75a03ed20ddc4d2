"""The hub with real sockets and a made-up training in another process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters
from tests.viewer.processes import training, wait_for
from viewer import hub as hub_module
from viewer.hub import Hub


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(hub_module, "SEEK_SECONDS", 0.05)
    return tmp_path


@pytest.fixture
def hub(runtime: Path) -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def until(hub: Hub, kind: str) -> None:
    def reached() -> bool:
        hub.tick()
        return hub.health().kind == kind

    wait_for(reached, what=f"{kind}, not {hub.health()}")


def until_numbers(hub: Hub) -> None:
    def reached() -> bool:
        hub.tick()
        return hub.state is not None and hub.state.numbers > 2

    wait_for(reached, what="numbers")


def test_it_waits_attaches_and_tells_the_end(hub: Hub, runtime: Path) -> None:
    hub.tick()
    assert hub.health().kind == "waiting"
    assert "No training" in hub.problem
    with training(runtime, "--net", "digits", "--end-after", "2"):
        until_numbers(hub)
        assert hub.health().kind == "training"
        until(hub, "finished")
    assert hub.state is not None
    assert hub.state.n_filters == 40  # the last picture stays
    assert "finished at batch" in hub.health().text


def test_a_run_that_fails(hub: Hub, runtime: Path) -> None:
    with training(runtime, "--net", "digits", "--end-after", "1", "--end", "failed"):
        until(hub, "failed")


def test_a_killed_run_and_the_next_one(hub: Hub, runtime: Path) -> None:
    with training(runtime, "--net", "digits") as process:
        until_numbers(hub)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until(hub, "gone")
    old = hub.state
    with training(runtime, "--net", "alexnet"):
        until(hub, "training")
        until_numbers(hub)
        assert hub.state is not old
        assert hub.state is not None
        assert hub.state.n_filters == 1152


def test_a_newer_run_does_not_steal_the_page_but_can_be_chosen(hub: Hub, runtime: Path) -> None:
    with training(runtime, "--net", "digits"):
        until_numbers(hub)
        first = hub.state
        with training(runtime, "--net", "alexnet"):
            wait_for(lambda: hub.tick() is None and len(hub.runs) == 2, what="two runs")
            assert hub.state is first
            hub.follow(hub.runs[0].run)
            until_numbers(hub)
            assert hub.state is not None
            assert hub.state.n_filters == 1152


def test_requests_and_previews(hub: Hub, runtime: Path) -> None:
    with pytest.raises(ProtocolError, match="no training"):
        hub.request(AddFilters("conv1"), "add", 0)
    with training(runtime, "--net", "digits"):
        until_numbers(hub)
        state = hub.state
        assert state is not None
        preview = hub.preview(RemoveFilters("conv2", [3]), 0)
        request = hub.request(RemoveFilters("conv2", [3]), "Remove conv2 · filter 3", 0)
        stale = hub.request(RemoveFilters("conv2", [3]), "again", 0)

        def answered() -> bool:
            hub.tick()
            return preview in state.plans and state.records[stale].state != "sent"

        wait_for(answered, what="replies")
        assert state.records[request].state == "applied"
        assert "version 1" in state.records[stale].text
        assert state.n_filters == 39


def test_a_connection_file_that_is_not_there_yet(runtime: Path, tmp_path: Path) -> None:
    with training(runtime, "--net", "digits"):
        wait_for(lambda: bool(list(runtime.glob("run-*.json"))), what="the connection file")
        (found,) = runtime.glob("run-*.json")
        wanted = tmp_path / "sub" / "copied.json"
        hub = Hub(wanted)
        try:
            hub.tick()
            assert str(wanted) in hub.problem
            wanted.parent.mkdir()
            wanted.write_bytes(found.read_bytes())
            wanted.chmod(0o600)
            time.sleep(0.1)
            until_numbers(hub)
        finally:
            hub.close()


def test_silence_is_told(hub: Hub, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SILENT_SECONDS", 0.5)
    with training(runtime, "--net", "digits") as process:
        until_numbers(hub)
        os.kill(process.pid, signal.SIGSTOP)
        until(hub, "silent")
        os.kill(process.pid, signal.SIGCONT)
        until(hub, "training")
