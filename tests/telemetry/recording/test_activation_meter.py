"""Activation maps of any type are measured."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from revacnn_lightning.telemetry import STATISTICS
from tests.telemetry.adapter import Module, Record, fit, loss_of, network


class Counted(Tensor):
    """Counts the operations on it, as a subclass that logs them may do."""

    calls = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.calls += 1
        return super().__torch_function__(func, types, args, kwargs or {})


class OnSubclass(Module):
    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch.as_subclass(Counted))


def test_measuring_calls_no_method_of_a_tensor_subclass():
    calls = []
    recordings = []
    for statistics in ((), STATISTICS):
        Counted.calls = 0
        recordings = fit(OnSubclass(network()), Record(statistics=statistics)).recordings
        calls.append(Counted.calls)
    expected = fit(Module(network()), Record(statistics=STATISTICS)).recordings
    np.testing.assert_array_equal(recordings[-1].values, expected[-1].values)
    assert calls[0] == calls[1]
