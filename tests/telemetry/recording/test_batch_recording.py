"""The statistics of networks with few filters, or none."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from revacnn_lightning.telemetry import STATISTICS, Recorder
from tests.telemetry.adapter import BATCHES, Module, Record, fit


@pytest.mark.parametrize("statistics", [STATISTICS, ("gradient",), ()])
def test_a_network_without_filters_raised_an_error(statistics: tuple[str, ...]):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))  # its only layer makes the output
    record = fit(Module(net), Record(statistics=statistics))
    assert len(record.recordings) == len(BATCHES)
    assert record.recordings[-1].values.shape == (len(statistics), 0)
    assert not record.recordings[-1].nonfinite


def test_a_frozen_network_has_no_gradients():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    net[0].requires_grad_(False)
    record = fit(Module(net), Record(statistics=STATISTICS))
    assert np.isnan(record.value(1, "gradient")).all()
    assert record.value(1, "activation").any()


def test_an_empty_batch_is_recorded():
    class Empty(Module):
        def training_step(self, batch, batch_idx):
            return self.net(batch[:0]).sum()

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    record = fit(Empty(net), Record(statistics=STATISTICS))
    assert np.isnan(record.value(1, "activation")).all()


def test_a_conv_without_filters_is_no_layer():
    with pytest.warns(UserWarning, match="zero-element"):
        net = nn.Sequential(nn.Conv2d(3, 0, 1), nn.Conv2d(3, 2, 1))
    assert Recorder(net).layers == ["1"]
