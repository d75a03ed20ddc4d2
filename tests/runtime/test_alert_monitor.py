"""Alerts of a run: each problem once, in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.runtime.alert_monitor import MAX_SHOWN, AlertMonitor
from tests.recording.messages import snapshot, structure


@pytest.fixture
def alerts() -> list[Alert]:
    return []


@pytest.fixture
def monitor(alerts: list[Alert]) -> AlertMonitor:
    monitor = AlertMonitor([alerts.append])
    monitor.receive(structure())
    return monitor


def test_a_healthy_run_raises_no_alert(monitor: AlertMonitor, alerts: list[Alert]):
    for step in range(300):
        metrics = {"val_loss": 1 / (1 + step // 50)}
        monitor.receive(replace(snapshot(step, 1 / (1 + step)), metrics=metrics))
    assert alerts == []


def test_a_loss_that_is_nan_is_one_alert(
    monitor: AlertMonitor, alerts: list[Alert], caplog: pytest.LogCaptureFixture
):
    for step in range(10):
        monitor.receive(snapshot(step, math.nan if step > 4 else 1.0))
    [alert] = alerts
    assert (alert.kind, alert.step) == ("nonfinite_loss", 5)
    assert alert.text == "The loss is nan at batch 5."
    assert alert.text in caplog.text
    assert monitor.shown == alerts


def test_a_layer_that_dies_is_named(monitor: AlertMonitor, alerts: list[Alert]):
    for step in range(60):
        batch = snapshot(step)
        values = np.ones_like(batch.values)
        values[1, 2:] = 0 if step >= 20 else 1  # the activation of conv1
        monitor.receive(replace(batch, values=values))
    [alert] = alerts
    assert (alert.kind, alert.layer) == ("layer_died", "conv1")
    assert 35 <= alert.step <= 50


def test_a_validation_that_stalls_is_named(monitor: AlertMonitor, alerts: list[Alert]):
    for step in range(600):
        value = 1.0 + 0.001 * (step // 20)  # one validation every 20 batches
        monitor.receive(replace(snapshot(step), metrics={"val_loss": value}))
    assert [(one.kind, "val_loss" in one.text) for one in alerts] == [("validation_stalls", True)]


def test_a_receiver_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture):
    received: list[Alert] = []

    def fail(alert: Alert) -> None:
        raise RuntimeError("the user's code")

    monitor = AlertMonitor([fail, received.append])
    monitor.receive(snapshot(0, math.nan))
    assert len(received) == 1
    assert "the user's code" in caplog.text


def test_the_alerts_of_a_run_are_bounded(monitor: AlertMonitor, alerts: list[Alert]):
    for step in range(0, 5000):
        monitor.receive(snapshot(step, math.nan if step % 25 == 24 else 1.0))
    assert len(alerts) == 50
    assert len(monitor.shown) == MAX_SHOWN
