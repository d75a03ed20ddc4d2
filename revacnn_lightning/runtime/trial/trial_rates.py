"""The rates of recorded steps, as they would be had a trial set some of them at its start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.edit_requests import SetHyperparameter
from revacnn_lightning.protocol.trial_requests import TrialEdit

__all__ = ["EditedTrialRates", "GroupRates", "title_of_rate_edit"]

GroupRates = Sequence[Mapping[str, Any]]  # of each parameter group, by name


class EditedTrialRates:
    """The learning rates and weight decays that the edits of a trial set.

    Args:
        edits: the edits of the trial. Edits that set no rate are ignored.
        start: the rates before its first step.
    """

    def __init__(self, edits: Sequence[TrialEdit], start: GroupRates) -> None:
        self._edits = [edit for edit in edits if isinstance(edit, SetHyperparameter)]
        self._start = start

    def check_settable(self) -> None:
        """Check that the rates exist and can be set.

        Raises:
            EditRefusedError: one cannot.
        """
        for edit in self._edits:
            known = self._start[edit.group] if 0 <= edit.group < len(self._start) else {}
            if edit.optimizer != 0 or edit.name not in known:
                raise EditRefusedError(f"the optimizer has no {edit.name} in group {edit.group}")
            if not 0 <= edit.value < math.inf:
                raise EditRefusedError(f"{edit.name} must be a finite number of at least 0")
            if edit.name == "lr" and 0 in (edit.value, float(known["lr"])):
                raise EditRefusedError("a rate of 0 cannot be tried, because schedules scale rates")

    def with_edits(self, rates: GroupRates) -> list[dict[str, Any]]:
        """Return later rates: those that an edit sets change in proportion, as schedules do."""
        result = [dict(group) for group in rates]
        for edit in self._edits:
            start, now = self._start[edit.group][edit.name], rates[edit.group][edit.name]
            same = float(now) == float(start)
            value = edit.value if same else float(now) * edit.value / float(start)
            is_tensor = isinstance(now, Tensor)
            result[edit.group][edit.name] = torch.full_like(now, value) if is_tensor else value
        return result

    def requests_to_set(self, present: GroupRates) -> list[SetHyperparameter]:
        """Return what sets the present rates as the edits would have set them at the start."""
        edited = self.with_edits(present)
        return [
            SetHyperparameter(
                one.optimizer, one.group, one.name, float(edited[one.group][one.name])
            )
            for one in self._edits
        ]


def title_of_rate_edit(edit: SetHyperparameter) -> str:
    """Return the title of an edit that sets a rate: what the rate is set to, in words."""
    name = "learning rate" if edit.name == "lr" else "weight decay"
    return f"Set the {name} of group {edit.group} to {edit.value:g}"
