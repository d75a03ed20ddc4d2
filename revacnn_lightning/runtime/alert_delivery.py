"""Passes alerts on to a webhook, a command or a function of the user, in threads of their own."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from revacnn_lightning.protocol.alerts import Alert

__all__ = ["AlertDelivery", "AlertTarget", "check_alert_target"]

log = logging.getLogger(__name__)

WEBHOOK_SECONDS, COMMAND_SECONDS = 10.0, 60.0
CLOSE_SECONDS = 10.0  # the end of a run waits so long for its last alerts
WEB = ("http://", "https://")

AlertTarget = str | Sequence[str] | Callable[[Alert], Any]


class AlertDelivery:
    """Sends alerts to the target that the user has chosen. Training does not wait for it.

    Args:
        target: the URL of a webhook, a command, or a function; see `ReVACNN`.
        run_description: a description of the run, which is sent with each alert.
    """

    def __init__(self, target: AlertTarget, run_description: Mapping[str, str]) -> None:
        self._target = target
        self._about = {**run_description, "host": socket.gethostname()}
        self._threads: list[threading.Thread] = []

    def send(self, alert: Alert) -> None:
        """Start to deliver an alert. A failure is logged."""
        thread = threading.Thread(
            target=self._deliver, args=(alert,), name="revacnn-alert", daemon=True
        )
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def close(self) -> None:
        """Wait a moment for the alerts that are being delivered."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _deliver(self, alert: Alert) -> None:
        target = self._target
        try:
            if callable(target):
                target(alert)
            elif isinstance(target, str) and target.startswith(WEB):
                self._post(target, alert)
            else:
                self._run(shlex.split(target) if isinstance(target, str) else list(target), alert)
        except Exception as error:  # noqa: BLE001 - whatever the user's target raises
            # The address of a webhook is a secret, so it is not logged.
            log.warning(
                "The alert %r was not delivered (%s: %s); training continues",
                alert.text,
                type(error).__name__,
                error,
            )

    def _content(self, alert: Alert) -> bytes:
        """Return the alert as JSON; ``text`` is what chat services show."""
        name = self._about.get("name") or self._about.get("model", "")
        content = {**self._about, **msgspec.to_builtins(alert), "text": f"{name}: {alert.text}"}
        return msgspec.json.encode(content)

    def _post(self, address: str, alert: Alert) -> None:
        request = urllib.request.Request(
            address,
            data=self._content(alert),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS):
            pass

    def _run(self, command: list[str], alert: Alert) -> None:
        subprocess.run(
            command,
            input=self._content(alert),
            env={**os.environ, "REVACNN_ALERT": alert.text},
            stdout=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=True,
        )


def check_alert_target(target: Any) -> None:
    """Raise ValueError if alerts cannot be delivered to this target."""
    if target is None or callable(target):
        return
    if isinstance(target, str) and target.startswith(WEB):
        return
    is_command = isinstance(target, str) or (
        isinstance(target, Sequence) and all(isinstance(part, str) for part in target)
    )
    if not is_command or not target or (isinstance(target, str) and "://" in target):
        raise ValueError(
            "alert must be the address of a webhook (http:// or https://), a command or a function"
        )
