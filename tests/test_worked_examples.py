"""The worked examples of CONTRIBUTING.md work once they are registered as its text says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.planning import planner
from revacnn_lightning.steering.tracing.rules.table import RULES
from revacnn_lightning.telemetry import STATISTICS, Recorder
from revacnn_lightning.telemetry.recording import recorder as recorder_module
from revacnn_lightning.telemetry.recording import sampling_schedule
from revacnn_lightning.telemetry.recording.layer_statistics import SUM_AND_DIVISOR
from tests.documentation import example_of

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def two_convs() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_statistic_is_recorded(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype):
    monkeypatch.setattr(recorder_module, "STATISTICS", (*STATISTICS, "weight_max"))
    monkeypatch.setattr(sampling_schedule, "ALL", (*STATISTICS, "weight_max"))
    monkeypatch.setitem(SUM_AND_DIVISOR, "weight_max", example_of("_weight_max"))
    model = two_convs().to(dtype)
    recorder = Recorder(model, statistics=("gradient", "activation", "weight_max"))
    recorder.attach()
    recorder.begin_batch()
    model(IMAGES.to(dtype)).square().sum().backward()
    recording = recorder.end_batch()
    recorder.detach()
    rows = [row.detach() for conv in (model[0], model[2]) for row in conv.weight]
    expected = [float(row.abs().max()) for row in rows]
    assert recording.values.dtype == np.float32
    values = recording.values[recording.names.index("weight_max")]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_the_edit_is_planned_applied_and_undone(monkeypatch: pytest.MonkeyPatch):
    kind: Any = example_of("SilenceFilters")
    monkeypatch.setitem(planner._PLANNERS, kind, example_of("plan_silencing"))
    model = two_convs()
    before = model[2].weight.detach().clone()
    editor, probe = Editor(model), ForwardProbe([lambda: model(IMAGES)])
    editor.apply(kind("0", [1]), probe)
    assert not model[2].weight[:, 1].any()
    assert torch.equal(model[2].weight[:, [0, 2, 3]], before[:, [0, 2, 3]])
    editor.apply(requests.Undo(), probe)
    assert torch.equal(model[2].weight, before)


def test_the_operation_of_the_rule_has_none():
    """Else, the block that edits a network with it would also pass without the example."""
    assert {"tril", "triu"}.isdisjoint(RULES)
