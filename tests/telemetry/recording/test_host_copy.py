from __future__ import annotations

import numpy as np
import torch

from revacnn_lightning.telemetry.recording.host_copy import HostCopy


def test_a_result_from_a_cpu_is_returned_immediately():
    copies: HostCopy[list[float]] = HostCopy()
    assert copies.send(torch.tensor([1.0, 2.0]), np.ndarray.tolist) == [1.0, 2.0]
    assert not copies.has_pending


def test_deferred_results_are_those_of_the_time_when_they_were_sent():
    copies: HostCopy[list[float]] = HostCopy()
    copies.defers_results = True
    buffer = torch.zeros(2)
    for number in range(3):
        buffer.fill_(number)  # the next batch uses the same memory
        assert copies.send(buffer, np.ndarray.tolist) is None
    buffer.fill_(9.0)
    assert copies.has_pending
    assert copies.completed() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    assert not copies.has_pending
    assert copies.completed() == []


def test_flush_returns_what_is_deferred():
    copies: HostCopy[list[float]] = HostCopy()
    copies.defers_results = True
    copies.send(torch.ones(1), np.ndarray.tolist)
    assert copies.flush() == [[1.0]]
