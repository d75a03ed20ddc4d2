"""Alerts in real Lightning trainings: none in healthy ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from revacnn_lightning import Alert, ReVACNN
from tests.small import NanLoss, TwoConvs, fit

DIGITS = Path(__file__).parent.parent / "examples" / "01_digits.py"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module."""
    monkeypatch.syspath_prepend(str(DIGITS.parent))
    spec = importlib.util.spec_from_file_location("digits_example", DIGITS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SilentLayer(TwoConvs):
    """Its second layer dies at batch 30."""

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int):  # type: ignore[no-untyped-def]
        if batch_idx == 30:
            with torch.no_grad():
                self.conv2.bias.fill_(-100)
        return super().training_step(batch, batch_idx)


def test_the_digits_example_raises_no_alert(
    digits: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alerts: list[Alert] = []
    callback = ReVACNN(alert=alerts.append, record=tmp_path / "run.mcap")
    monkeypatch.setattr(digits, "ReVACNN", lambda **_: callback)
    monkeypatch.setattr("sys.argv", ["01_digits.py", "--epochs", "3", "--pace", "0"])
    digits.main()
    assert callback._continuation.step > 100
    assert alerts == []


def test_a_loss_that_becomes_nan_is_reported_to_the_function():
    alerts: list[Alert] = []
    fit(NanLoss(), [ReVACNN(alert=alerts.append)])
    assert [(alert.kind, alert.step) for alert in alerts] == [("nonfinite_loss", 6)]


def test_a_layer_that_dies_is_reported_to_the_function():
    alerts: list[Alert] = []
    fit(SilentLayer(), [ReVACNN(alert=alerts.append)], count=100)
    assert [(alert.kind, alert.layer) for alert in alerts] == [("layer_died", "conv2")]
