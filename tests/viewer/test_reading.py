"""The hub reads as soon as something arrives: by real sockets, in a real event loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.viewer.processes import training
from viewer.hub import Hub
from viewer.reading import Reading


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(tmp_path))
    return tmp_path


class Watched(Hub):
    """Counts how it is driven."""

    reads = ticks = 0

    def read(self) -> None:
        self.reads += 1
        super().read()

    def tick(self) -> None:
        self.ticks += 1
        super().tick()


async def _until(condition, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_every_snapshot_is_read_when_it_comes_and_not_by_looking_often(runtime: Path) -> None:
    async def follow() -> tuple[int, int]:
        hub = Watched()
        reading = Reading(hub)
        await _until(lambda: hub.state is not None and hub.state.numbers > 0)
        assert hub.state is not None
        hub.tick = lambda: None  # type: ignore[method-assign]
        reading._ticks.stop()
        before, reads = hub.state.numbers, hub.reads
        await _until(lambda: hub.state.numbers >= before + 20)  # type: ignore[union-attr]
        counted = hub.state.numbers - before, hub.reads - reads
        reading.close()
        hub.close()
        return counted

    with training(runtime, "--net", "digits", "--hz", "20"):
        numbers, reads = asyncio.run(follow())
    assert numbers >= 20
    assert reads <= 3 * numbers + 10  # about two for each: when it comes, and once after


def test_what_is_closed_is_waited_on_no_more(runtime: Path) -> None:
    async def follow() -> None:
        hub = Watched()
        reading = Reading(hub)
        await _until(lambda: hub.state is not None and hub.state.numbers > 0)
        hub.close()
        assert reading._waited_on == []
        await asyncio.sleep(0.1)
        reading.close()

    with training(runtime, "--net", "digits"):
        asyncio.run(follow())
