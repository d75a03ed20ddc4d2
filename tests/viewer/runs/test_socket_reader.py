"""The follower reads as soon as something arrives: by real sockets, in a real event loop."""

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
from viewer.runs.socket_reader import SocketReader


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(tmp_path))
    return tmp_path


class Counted(RunFollower):
    """Counts how often it reads."""

    reads = 0

    def receive(self) -> None:
        self.reads += 1
        super().receive()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "RunFollower", Counted)


async def _attached(runs: RunRegistry) -> Counted:
    """The follower of the run, once it has numbers."""
    deadline = time.monotonic() + 20.0
    while True:
        for follower in runs.followers():
            if follower.state is not None and follower.state.values_revision > 0:
                assert isinstance(follower, Counted)
                return follower
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("counted")
def test_every_snapshot_is_read_when_it_comes_and_not_by_looking_often(runtime: Path) -> None:
    async def follow() -> tuple[int, int]:
        runs = RunRegistry()
        reading = SocketReader(runs)
        follower = await _attached(runs)
        reading._ticks.stop()
        assert follower.state is not None
        before, reads = follower.state.values_revision, follower.reads
        deadline = time.monotonic() + 20.0
        while follower.state.values_revision < before + 20:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        seen = follower.state.values_revision - before, follower.reads - reads
        reading.close()
        runs.close()
        return seen

    with training(runtime, "--net", "digits", "--hz", "20"):
        numbers, reads = run(follow())
    assert numbers >= 20
    assert reads <= 3 * numbers + 10  # about two for each: when it comes, and once after


@pytest.mark.usefixtures("counted")
def test_what_is_closed_is_waited_on_no_more(runtime: Path) -> None:
    async def follow() -> None:
        runs = RunRegistry()
        reading = SocketReader(runs)
        follower = await _attached(runs)
        follower.close()
        reads = follower.reads
        reading._ticks.stop()
        await asyncio.sleep(0.2)
        assert follower.reads == reads
        reading.close()
        runs.close()

    with training(runtime, "--net", "digits"):
        run(follow())
