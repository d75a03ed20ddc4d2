"""What tests of the statistics share."""

from __future__ import annotations

import pytest
import torch

from revacnn_lightning.telemetry import STATISTICS, Recorder


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """Use one thread: the networks are small, and other tests may run in parallel."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def recorder_of():
    """Return a function that attaches a recorder to a model until the test ends."""
    made = []

    def make(model, statistics=STATISTICS):
        recorder = Recorder(model, statistics=statistics)
        recorder.attach()
        made.append(recorder)
        return recorder

    yield make
    for recorder in made:
        recorder.detach()
