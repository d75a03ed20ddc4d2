from __future__ import annotations

import pytest
import torch

from revacnn_lightning.runtime import metric_reader
from revacnn_lightning.runtime.metric_reader import MetricReader


def test_metrics_in_host_memory_are_read_immediately() -> None:
    reader = MetricReader()
    assert reader.read(7, {"a": torch.tensor(0.1, dtype=torch.float64), "b": 2}) == [
        (7, {"a": 0.1, "b": 2.0})
    ]
    assert reader.newest == {"a": 0.1, "b": 2.0}
    assert reader.pop_arrived() == []


def test_metrics_of_a_gpu_are_copied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_reader, "is_on_gpu", lambda value: isinstance(value, torch.Tensor))
    reader = MetricReader()
    read = reader.read(7, {"a": torch.tensor([0.5]), "b": torch.tensor(3), "c": 1.0})
    assert read == [(7, {"a": 0.5, "b": 3.0, "c": 1.0})]
