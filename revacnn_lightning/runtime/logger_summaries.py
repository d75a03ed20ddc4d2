"""Summaries of the layers for the loggers of the Trainer: TensorBoard, W&B, CSV, MLflow, ..."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from revacnn_lightning.history.network_statistics import NetworkAndDeadFilterTracker
from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.messages import Applied, Message, Snapshot
from revacnn_lightning.runtime.loggable_findings import FindingLogConverter
from revacnn_lightning.runtime.loggable_verdicts import VerdictLogConverter

__all__ = ["LoggerSummaries"]

log = logging.getLogger(__name__)

PREFIX = "revacnn"
LOGGED = ("gradient", "activation", "update_ratio", "dead_share")


class LoggerSummaries:
    """Logs the means of the layers, the findings and the verdicts at the logging interval of the
    Trainer, and each edit and alert.

    An exception of a logger is logged, and the logger gets no more summaries.

    Args:
        get_loggers: returns the loggers.
        get_logging_step: returns the step by which the loggers know the next batch, and whether
            Lightning logs that batch.
        network: is updated before each message arrives.
    """

    def __init__(
        self,
        get_loggers: Callable[[], Sequence[Any]],
        get_logging_step: Callable[[], tuple[int, bool]],
        network: NetworkAndDeadFilterTracker,
    ) -> None:
        self._get_loggers = get_loggers
        self._get_logging_step = get_logging_step
        self._network = network
        self._failed: list[Any] = []  # loggers
        self._due: dict[int, int] = {}  # logging steps by batch
        self._logged_step = -1
        self._logging_step = 0
        self._n_edits = self._n_alerts = 0
        self._findings = FindingLogConverter()
        self._verdicts = VerdictLogConverter()

    def needs_batch(self, step: int) -> bool:
        """Return whether the batch is to be logged: the first one of a logging step that is due."""
        self._logging_step, is_due = self._get_logging_step()
        if not is_due or self._logging_step == self._logged_step:
            return False
        self._logged_step = self._logging_step
        self._due[step] = self._logging_step
        return True

    def receive(self, message: Message, frames: Sequence[Any] = ()) -> None:
        """Log a batch that is due, or an edit."""
        self._verdicts.receive(message)
        if isinstance(message, Snapshot):
            step = self._pop_due(message)
            if step is not None and self._network.has_structure_of(message):
                findings, text = self._findings.update(message, self._network)
                verdicts, evidence = self._verdicts.update(self._network.dead_mask())
                named = _named("findings", findings) | _named("verdicts", verdicts)
                texts = filter(None, (text, evidence))
                self._log(self._summary(message) | named, step, "; ".join(texts))
        elif isinstance(message, Applied):
            self._n_edits += 1
            parameters = float(message.plan.parameters_after)
            figures = {f"{PREFIX}/edits": float(self._n_edits), f"{PREFIX}/parameters": parameters}
            self._log(figures, self._logging_step, message.plan.title)

    def receive_alert(self, alert: Alert) -> None:
        """Log an alert."""
        self._n_alerts += 1
        self._log({f"{PREFIX}/alerts": float(self._n_alerts)}, self._logging_step, alert.text)

    def close(self, state: str, detail: str) -> None:
        """Do nothing: the loggers belong to the Trainer."""

    def _pop_due(self, batch: Snapshot) -> int | None:
        """Return the logging step of the last batch of a snapshot that is due; None if none is."""
        first = batch.step if batch.first_step is None else batch.first_step
        arrived = [step for step in self._due if step <= batch.step]
        logging_steps = {step: self._due.pop(step) for step in arrived}
        last = max(arrived, default=-1)
        return logging_steps[last] if last >= first else None

    def _summary(self, batch: Snapshot) -> dict[str, float]:
        """Return the means that were measured, by name."""
        means = self._network.layer_means(batch)
        return {
            f"{PREFIX}/{name}/{layer}": float(value)
            for name in LOGGED
            for layer, value in zip(self._network.layer_names, means.get(name, ()), strict=False)
            if math.isfinite(value)
        }

    def _log(self, figures: Mapping[str, float], step: int, text: str = "") -> None:
        if not figures:
            return
        for logger in self._get_loggers():
            if any(logger is one for one in self._failed):
                continue
            try:
                logger.log_metrics(dict(figures), step=step)
                if text:
                    _add_text(logger, text, step)
            except Exception:  # a logger must not stop the training
                self._failed.append(logger)
                log.warning(
                    "%s does not accept the summaries of ReVACNN and gets no more of them; "
                    "training continues",
                    type(logger).__name__,
                    exc_info=True,
                )


def _named(what: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{PREFIX}/{what}/{name}": value for name, value in figures.items()}


def _add_text(logger: Any, text: str, step: int) -> None:
    """Add a text to TensorBoard; other loggers have no common way."""
    add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
    if callable(add_text) and type(logger).__name__ == "TensorBoardLogger":
        add_text(PREFIX, text, step)
