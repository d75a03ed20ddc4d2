"""Detects that a training sets a hyperparameter itself, after a viewer has set it.

A schedule that is known continues from the new value. A training may also assign rates in its own
code, for example in `optimizer_step`, or start another schedule later. Then the value that was set
is lost, which the user must learn.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from revacnn_lightning.protocol.requests import SetHyperparameter
from revacnn_lightning.runtime.schedulers import (
    computes_rates_like_torch,
    last_rates,
    schedulers_of,
)

__all__ = ["OverrideDetector"]

log = logging.getLogger(__name__)

# After this many batches, only the first batch of each epoch is checked.
CHECKED_BATCHES = 10
LABELS = {"lr": "learning rate", "weight_decay": "weight decay"}


@dataclass
class _Expectation:
    """The value that a hyperparameter should still have, unless one of the schedules changed it."""

    value: float
    schedules: list[Any]
    checks_left: int = CHECKED_BATCHES


class OverrideDetector:
    """Compares the hyperparameters that were set with those that training uses.

    Args:
        get_optimizers: returns the current optimizers of the run.
        get_schedulers: returns its current schedulers.

    Attributes:
        notes: (optimizer, group) -> what the training has overridden.
    """

    def __init__(
        self,
        get_optimizers: Callable[[], Sequence[Optimizer]],
        get_schedulers: Callable[[], Sequence[Any]],
    ) -> None:
        self.notes: dict[tuple[int, int], str] = {}
        self._get_optimizers = get_optimizers
        self._get_schedulers = get_schedulers
        self._expected: dict[tuple[int, int, str], _Expectation] = {}

    def expect(self, request: SetHyperparameter) -> None:
        """Expect the value of a request that was executed."""
        optimizer = self._get_optimizers()[request.optimizer]
        schedules = schedulers_of(optimizer, self._get_schedulers()) if request.name == "lr" else []
        key = (request.optimizer, request.group, request.name)
        self._expected[key] = _Expectation(request.value, schedules)
        self.notes.pop((request.optimizer, request.group), None)

    def detect(self, step: int, *, first_of_epoch: bool) -> bool:
        """Return whether training has overridden a value before batch ``step``, and note it."""
        found = False
        for key, expected in list(self._expected.items()):
            if not first_of_epoch and expected.checks_left <= 0:
                continue
            expected.checks_left -= 1
            current = self._current_value(key)
            if current is None:
                del self._expected[key]
            elif not self._is_expected(key, expected, current):
                del self._expected[key]
                self._add_note(key, expected.value, current, step)
                found = True
        return found

    def _current_value(self, key: tuple[int, int, str]) -> float | None:
        optimizer, group, name = key
        optimizers = self._get_optimizers()
        if optimizer >= len(optimizers) or group >= len(optimizers[optimizer].param_groups):
            return None
        return float(optimizers[optimizer].param_groups[group][name])

    def _is_expected(
        self, key: tuple[int, int, str], expected: _Expectation, current: float
    ) -> bool:
        if _is_close(current, expected.value):
            return True
        optimizer, group, name = key
        if name != "lr":
            return False
        present = schedulers_of(self._get_optimizers()[optimizer], self._get_schedulers())
        if {id(s) for s in present} != {id(s) for s in expected.schedules}:
            return False
        expected_now = any(
            _is_close(current, rate) for s in present for rate in _last_rate(s, group)
        )
        # A schedule of the user's own may not keep the rates that it sets.
        if not expected_now and all(computes_rates_like_torch(s) for s in present):
            return False
        expected.value = current
        return True

    def _add_note(self, key: tuple[int, int, str], value: float, current: float, step: int) -> None:
        optimizer, group, name = key
        note = (
            f"the training sets its own {LABELS[name]}: it replaced {value:g} by {current:g} "
            f"before batch {step}"
        )
        self.notes[optimizer, group] = note
        log.warning("Parameter group %d of optimizer %d: %s", group, optimizer, note)


def _last_rate(scheduler: Any, group: int) -> list[float]:
    """Return the rate of a group that a scheduler set last, if it knows."""
    rates = last_rates(scheduler)
    return [float(rates[group])] if group < len(rates) else []


def _is_close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)  # a rate may be a float32 tensor
