"""Fixtures of clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.simulated_run import SimulatedRun


@pytest.fixture
def training() -> Iterator[SimulatedRun]:
    one = SimulatedRun()
    yield one
    one.close()
