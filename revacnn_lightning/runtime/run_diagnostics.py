"""What observes a run by itself: alerts, and summaries for the Trainer's loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.runtime.alert_delivery import AlertDelivery, AlertTarget
from revacnn_lightning.runtime.alert_monitor import AlertMonitor, AlertReceiver
from revacnn_lightning.runtime.logger_summaries import LoggerSummaries
from revacnn_lightning.runtime.message_observers import MessageObserver
from revacnn_lightning.runtime.trainer_adapter import next_logging_step_and_is_due

__all__ = ["AlertAndSummaryObservers"]


class AlertAndSummaryObservers:
    """Makes the observers of a run: alerts, and summaries for the Trainer's loggers.

    Args:
        alert_target: the target of alerts that the user has given. With None, alerts are logged and
            shown only.
        run_description: describes the run.
        trainer: the Trainer whose loggers get summaries; None if no logger gets any.

    Attributes:
        alerts: raises the alerts.
        observers: receive the messages of the run after ``alerts``.
    """

    def __init__(
        self,
        alert_target: AlertTarget | None,
        run_description: Mapping[str, str],
        trainer: Any = None,
    ) -> None:
        receivers: list[AlertReceiver] = []
        self.alerts = AlertMonitor(receivers)
        self.observers: list[MessageObserver] = []
        if trainer is not None:
            summaries = LoggerSummaries(
                lambda: trainer.loggers,
                lambda: next_logging_step_and_is_due(trainer),
                self.alerts.network,
            )
            self.observers.append(summaries)
            receivers.append(summaries.receive_alert)
        if alert_target is not None:
            delivery = AlertDelivery(alert_target, run_description)
            self.observers.append(_ClosesDelivery(delivery))
            receivers.append(delivery.send)


class _ClosesDelivery:
    """Waits for the last alerts at the end of a run."""

    def __init__(self, delivery: AlertDelivery) -> None:
        self._delivery = delivery

    def needs_batch(self, step: int) -> bool:
        return False

    def receive(self, message: Message, frames: Sequence[Any] = ()) -> None:
        pass

    def close(self, state: str, detail: str) -> None:
        self._delivery.close()
