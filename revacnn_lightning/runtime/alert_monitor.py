"""Raises alerts about a run: the loss is NaN or diverges, a layer dies, validation stalls."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from revacnn_lightning.diagnostics.alert_rules import (
    DivergingLossDetector,
    NonfiniteLossDetector,
    StalledMetricDetector,
    find_dead_layers,
    metric_direction,
)
from revacnn_lightning.history.network_statistics import NetworkAndDeadFilterTracker
from revacnn_lightning.protocol.alerts import Alert, AlertKind
from revacnn_lightning.protocol.messages import Message, Snapshot, Structure

__all__ = ["AlertMonitor", "AlertReceiver"]

log = logging.getLogger(__name__)

MAX_ALERTS = 50  # of a run
MAX_SHOWN = 8  # kept for viewers that attach late
ACTIVATION_INTERVAL = 5  # batches between two checks for dead filters
MAX_METRICS = 64

AlertReceiver = Callable[[Alert], None]


class AlertMonitor:
    """Raises an alert when a recorded batch of a run breaks a rule of `diagnostics.alert_rules`.

    Args:
        receivers: functions that are called with each alert. Their exceptions are logged.

    Attributes:
        shown: the last alerts, oldest first.
        network: the statistics of the network, up to date with the last message.
    """

    def __init__(self, receivers: Sequence[AlertReceiver] = ()) -> None:
        self.shown: list[Alert] = []
        self.network = NetworkAndDeadFilterTracker()
        self._receivers = receivers
        self._n_alerts = 0
        self._nonfinite = NonfiniteLossDetector()
        self._diverging = DivergingLossDetector()
        self._metrics: dict[str, StalledMetricDetector] = {}
        self._dead_layers: set[str] = set()
        self._next_check = 0  # step

    def needs_batch(self, step: int) -> bool:
        """Return False: the batches that are recorded for others suffice."""
        return False

    def receive(self, message: Message, frames: Sequence[Any] = ()) -> None:
        """Apply the rules to a message of the run."""
        if isinstance(message, Structure):
            self.network.update_structure(message)
        elif isinstance(message, Snapshot):
            self._check_loss(message)
            self._check_metrics(message)
            self._check_layers(message)

    def raise_alert(self, kind: AlertKind, step: int, text: str) -> None:
        """Raise an alert that no message of the run shows."""
        self._raise(kind, step, text)

    def close(self, state: str, detail: str) -> None:
        """Do nothing: this observer holds no resources."""

    # ------------------------------------------------------------------ rules

    def _check_loss(self, batch: Snapshot) -> None:
        if batch.loss is None:
            return
        if self._nonfinite.detect(batch.loss):
            text = f"The loss is {batch.loss} at batch {batch.step}."
            self._raise("nonfinite_loss", batch.step, text)
        if self._diverging.detect(batch.loss):
            text = (
                f"The loss diverges: {batch.loss:.4g} at batch {batch.step}. Its level was far "
                "lower before."
            )
            self._raise("loss_diverges", batch.step, text)

    def _check_metrics(self, batch: Snapshot) -> None:
        for name, value in batch.metrics.items():
            rule = self._metrics.get(name)
            if rule is None:
                sign = metric_direction(name)
                if not sign or len(self._metrics) >= MAX_METRICS:
                    continue
                rule = self._metrics.setdefault(name, StalledMetricDetector(sign))
            if rule.detect(value):
                text = f"{name} has not improved in the last validations, at batch {batch.step}."
                self._raise("validation_stalls", batch.step, text)

    def _check_layers(self, batch: Snapshot) -> None:
        network = self.network
        if batch.step < self._next_check or not network.has_structure_of(batch):
            return
        self._next_check = batch.step + ACTIVATION_INTERVAL
        dead = network.dead_mask() if network.add_activation(batch) else None
        if dead is None:
            return
        names = network.layer_names
        found = {names[i] for i in find_dead_layers(dead, network.offsets)}
        for name in sorted(found - self._dead_layers):
            text = (
                f"The layer {name} died: none of its filters has been active in the batches "
                f"before batch {batch.step}."
            )
            self._raise("layer_died", batch.step, text, name)
        self._dead_layers = found

    def _raise(self, kind: AlertKind, step: int, text: str, layer: str = "") -> None:
        self._n_alerts += 1
        if self._n_alerts > MAX_ALERTS:
            return
        alert = Alert(kind, step, text, layer, time.time())
        self.shown = [*self.shown, alert][-MAX_SHOWN:]
        log.warning("%s", text)
        for receiver in list(self._receivers):
            try:
                receiver(alert)
            except Exception:  # a user's receiver must not stop the training
                log.warning("An alert could not be passed on; training continues", exc_info=True)
