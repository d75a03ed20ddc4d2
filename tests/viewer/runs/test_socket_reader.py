"""Messages are received as soon as they arrive, with real sockets and a real event loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.viewer.loops import run
from tests.viewer.processes import training
from viewer.runs import registry as runs_module
from viewer.runs.registry import RunRegistry
from viewer.runs.run_follower import RunFollower
from viewer.runs.socket_reader import RunMessageReceiver


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(tmp_path))
    return tmp_path


class CountingFollower(RunFollower):
    """Counts the calls of `receive`."""

    n_receives = 0

    def receive(self) -> None:
        self.n_receives += 1
        super().receive()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "RunFollower", CountingFollower)


async def _attach(runs: RunRegistry) -> CountingFollower:
    """Wait for the first snapshot and return the run's follower."""
    deadline = time.monotonic() + 240.0
    while True:
        for follower in runs.followers():
            if follower.state is not None and follower.state.values_revision > 0:
                assert isinstance(follower, CountingFollower)
                return follower
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("counting")
def test_snapshots_are_received_on_arrival_without_polling(runtime: Path) -> None:
    async def receive() -> tuple[int, int]:
        runs = RunRegistry()
        reader = RunMessageReceiver(runs)
        follower = await _attach(runs)
        reader._ticks.stop()
        assert follower.state is not None
        before, n_before = follower.state.values_revision, follower.n_receives
        deadline = time.monotonic() + 240.0
        while follower.state.values_revision < before + 20:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        counts = follower.state.values_revision - before, follower.n_receives - n_before
        reader.close()
        runs.close()
        return counts

    with training(runtime, "--net", "digits", "--hz", "20"):
        n_snapshots, n_receives = run(receive())
    assert n_snapshots >= 20
    assert n_receives <= 3 * n_snapshots + 10  # about two each: on arrival, and after the pause


@pytest.mark.usefixtures("counting")
def test_closed_follower_is_not_read(runtime: Path) -> None:
    async def detach() -> None:
        runs = RunRegistry()
        reader = RunMessageReceiver(runs)
        follower = await _attach(runs)
        follower.close()
        n_before = follower.n_receives
        reader._ticks.stop()
        await asyncio.sleep(0.2)
        assert follower.n_receives == n_before
        reader.close()
        runs.close()

    with training(runtime, "--net", "digits"):
        run(detach())
