"""Makes the entries that edits add to a parameter train like those of a fresh parameter.

Adam divides its moments by a bias correction, ``1 - beta ** step``, which is small in the first
steps and protects a fresh parameter. A new entry of an old parameter has fresh moments, but the
step of the others: without the correction, its updates are several times those of all others for
hundreds of steps, and filters without batch norm die of it.

Therefore hooks around each optimizer step repeat the step for young entries only, with the
optimizer's own code, from the same weights, gradients and moments, but with their own step count.
Other entries keep what the optimizer computed, bit by bit. Once the correction has faded, the
entries are mature and the hooks are removed.

The first updates are also damped (`young_cohorts.early_update_damping`), and the updates of young
entries are on average at most a little larger than those of the mature entries (`update_cap`).
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import entry_ages
from revacnn_lightning.steering.execution.update_cap import (
    MatureEntryUpdateMeter,
    cap_young_update_share,
)
from revacnn_lightning.steering.execution.young_cohorts import (
    YoungCohort,
    cohorts_of,
    early_update_damping,
    step_cohorts_only,
    young_entry_mask,
)
from revacnn_lightning.telemetry.inspection.user_modes import torch_modes_suspended

__all__ = ["FrozenEntries", "YoungEntryHooks"]

log = logging.getLogger(__name__)

# Entries are mature when their correction differs from that of the others by at most this share.
REMAINING_CORRECTION = 0.01
MAX_STEPS = 10_000  # for betas so close to 1 that this would take forever

# (parameter) -> (dimension, indices on its device) of its frozen slices
FrozenEntries = Callable[[Tensor], Iterable[tuple[int, Tensor]]]


class YoungEntryHooks:
    """Hooks that give young entries the optimizer steps that a fresh parameter would get.

    Call `refresh` after every edit and every change of the optimizers.

    Args:
        frozen: a function that returns the frozen slices of a parameter. They do not age.
    """

    def __init__(self, frozen: FrozenEntries) -> None:
        self._frozen = frozen
        self._steps: list[_YoungSteps] = []

    def refresh(self, optimizers: Sequence[Optimizer]) -> None:
        """Find the young entries and hook the optimizers that train some."""
        self.release()
        for optimizer in optimizers:
            if entry_ages.parameters_with_young_entries(optimizer):
                self._steps.append(_YoungSteps(optimizer, self._frozen))

    def release(self) -> None:
        """Remove every hook."""
        for steps in self._steps:
            steps.release()
        self._steps.clear()


def _without_interrupting(hook: Callable[..., None]) -> Callable[..., None]:
    """Decorate a hook of `_YoungSteps` so that an error in it does not stop the training.

    Modes do not see its operations either: a replay of a recorded training step, which under manual
    optimization contains this one, would index entries that the next edit removes.
    """

    @functools.wraps(hook)
    def guarded(self: _YoungSteps, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            with torch_modes_suspended():
                hook(self, optimizer, args, kwargs)
        except Exception as error:  # new filters start badly without it, but training continues
            log.warning("New filters train without their own bias correction: %s", error,
                        exc_info=True)  # fmt: skip
            self.disable_until_refresh(optimizer)

    return guarded


class _YoungSteps:
    """The hooks of one optimizer. They find the young entries at the first step."""

    def __init__(self, optimizer: Optimizer, frozen: FrozenEntries) -> None:
        self._frozen = frozen
        self._cohorts: list[YoungCohort] | None = None
        self._mature: dict[Tensor, MatureEntryUpdateMeter] = {}  # of parameters that have any
        self._steps_left = 0  # until the next entries may be mature
        self._before = optimizer.register_step_pre_hook(self._before_step)
        self._after = optimizer.register_step_post_hook(self._after_step)

    def release(self) -> None:
        self._before.remove()
        self._after.remove()

    def disable_until_refresh(self, optimizer: Optimizer) -> None:
        """Treat all entries as mature."""
        self._cohorts, self._mature = [], {}
        for parameter in entry_ages.parameters_with_young_entries(optimizer):
            entry_ages.forget_birth_steps(optimizer, parameter)

    @_without_interrupting
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._cohorts is None or self._steps_left <= 0:
            self._find_cohorts(optimizer)
        for cohort in self._cohorts or ():
            cohort.load(optimizer.state.get(cohort.parameter, {}))
        for mature in self._mature.values():
            mature.keep_values_before_step()

    @_without_interrupting
    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not entry_ages.parameters_with_young_entries(optimizer):
            # All are mature. This hook itself cannot be removed while the optimizer iterates over
            # its hooks; the next `refresh` does.
            self._before.remove()
            self._cohorts, self._mature = [], {}
            return
        cohorts = [c for c in self._cohorts or () if c.is_stepped]
        if cohorts:
            self._step_young(optimizer, cohorts)
        self._delay_frozen(optimizer)
        self._steps_left -= 1

    def _step_young(self, optimizer: Optimizer, cohorts: list[YoungCohort]) -> None:
        """Replace what the optimizer computed for young entries by their damped, capped steps."""
        before = [cohort.weights.clone() for cohort in cohorts]
        step_cohorts_only(optimizer, cohorts)
        limits = {
            parameter: self._mature[parameter].mean_update()
            for parameter in dict.fromkeys(cohort.parameter for cohort in cohorts)
            if parameter in self._mature
        }
        for cohort, weights in zip(cohorts, before, strict=True):
            share = early_update_damping(optimizer.param_groups[cohort.group], cohort.state["step"])
            if cohort.parameter in limits:
                change = cohort.weights.detach() - weights
                share = cap_young_update_share(share, change, limits[cohort.parameter])
            cohort.store(optimizer.state[cohort.parameter], weights, share)

    def _find_cohorts(self, optimizer: Optimizer) -> None:
        """Group the young entries by age, and remove the hooks if there are none."""
        self._cohorts, self._mature, self._steps_left = [], {}, MAX_STEPS
        for parameter in entry_ages.parameters_with_young_entries(optimizer):
            births = entry_ages.birth_steps_along_dims(optimizer, parameter)
            step = optimizer.state.get(parameter, {}).get("step")
            number = _group_of(optimizer, parameter)
            if step is None or number is None or not births:
                entry_ages.forget_birth_steps(optimizer, parameter)  # its state was replaced
                continue
            last_mature_step = float(step) - _steps_to_mature(
                optimizer, optimizer.param_groups[number]
            )
            young = young_entry_mask(births, parameter, last_mature_step)
            if not young.any():
                entry_ages.forget_birth_steps(optimizer, parameter)
                continue
            mature = ~young
            for dim, frozen in self._frozen(parameter):
                young.index_fill_(dim, frozen.cpu(), False)
                mature.index_fill_(dim, frozen.cpu(), False)
            if mature.any():
                self._mature[parameter] = MatureEntryUpdateMeter(parameter, mature)
            for cohort in cohorts_of(optimizer, parameter, number, young, births):
                self._cohorts.append(cohort)
                self._steps_left = min(self._steps_left, int(cohort.born - last_mature_step))

    def _delay_frozen(self, optimizer: Optimizer) -> None:
        for parameter in entry_ages.parameters_with_young_entries(optimizer):
            for dim, frozen in self._frozen(parameter):
                entry_ages.exclude_step_from_ages(optimizer, parameter, dim, frozen.cpu())


def _group_of(optimizer: Optimizer, parameter: Tensor) -> int | None:
    """Return the number of the group that trains a parameter, if one does."""
    for number, group in enumerate(optimizer.param_groups):
        if any(each is parameter for each in group["params"]):
            return number
    return None


def _steps_to_mature(optimizer: Optimizer, group: dict[str, Any]) -> int:
    """Return after how many steps the bias correction of an entry has faded."""
    beta = float(group["alpha"] if "alpha" in group else max(group["betas"]))
    if not 0 < beta < 1:
        return 1 if beta == 0 else MAX_STEPS
    return min(MAX_STEPS, math.ceil(math.log(REMAINING_CORRECTION) / math.log(beta)))
