from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry import STATISTICS, Recorder
from tests.telemetry import reference
from tests.telemetry.adapter import BATCHES, Module, Record, fit, loss_of, network, of_layer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*Trying to infer the `batch_size`"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # raised by the compiler
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


class PartlyCompiled(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.open = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
        inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        if how == "torch.compile":
            inner = torch.compile(inner, backend="aot_eager")
        else:
            inner.compile(backend="aot_eager")
        self.closed = inner

    def forward(self, x):
        return self.closed(self.open(x))


@pytest.mark.parametrize("how", ["torch.compile", "Module.compile"])
def test_compiled_submodule_is_reported_as_not_observed(how, caplog):
    plain = PartlyCompiled(how)
    for _ in range(3):  # the compiler filters warnings, too
        plain.zero_grad()
        reference.train_step(plain, BATCHES[0])
    filters = set(warnings.filters)
    model = PartlyCompiled(how)
    recorder = Recorder(model, statistics=STATISTICS)
    recorder.attach()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            model.zero_grad()
            recorder.begin_batch()
            reference.train_step(model, BATCHES[0])
            recording = recorder.end_batch()
    closed = "closed._orig_mod.0" if how == "torch.compile" else "closed.0"
    assert recorder.observed == {"open.0": True, closed: False}
    assert caplog.text.count(closed) == 1
    assert np.isnan(of_layer(recording, "activation", closed)).all()
    assert np.isnan(of_layer(recording, "signal_to_noise", closed)).all()
    conv = model.get_submodule(closed)
    np.testing.assert_allclose(
        of_layer(recording, "gradient", closed),
        reference.mean_absolute_coefficient(conv.weight.grad, conv),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        of_layer(recording, "activation", "open.0"),
        reference.pixel_sum(model.open(BATCHES[0])),
        rtol=1e-4,
    )
    recorder.detach()
    added = set(warnings.filters) - filters
    # Older releases of the compiler add this one at some later time.
    assert not [each for each in added if str(each[3]) != "re.compile('torch.distributed')"]


def test_the_notice_of_compiled_layers_is_not_repeated_after_an_edit(caplog):
    model = PartlyCompiled("Module.compile")
    recorder = Recorder(model, statistics=STATISTICS)
    recorder.attach()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            model.zero_grad()
            recorder.begin_batch()
            reference.train_step(model, BATCHES[0])
            recorder.end_batch()
            model.open[0] = nn.Conv2d(3, 3, 3)
            recorder.update_structure()
    recorder.detach()
    assert caplog.text.count("compiled region") == 1


def test_a_compiled_lightning_module(caplog):
    module = torch.compile(Module(), backend="aot_eager")
    with caplog.at_level(logging.WARNING, "revacnn_lightning"):
        recorded = fit(module)
    assert (
        torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    )  # our hooks cause no recompilation
    assert recorded.recorder.observed == {"net.0": False, "net.3": False}
    assert "not observed" in caplog.text
    for batch in (0, 3):
        net = network()
        loss_of(net, BATCHES[batch]).backward()
        np.testing.assert_allclose(
            recorded.value(batch, "gradient"),
            reference.mean_absolute_coefficient(net[0].weight.grad, net[0]),
            rtol=1e-3,
        )
        assert np.isnan(recorded.value(batch, "activation")).all()
    assert isinstance(recorded, Record)
