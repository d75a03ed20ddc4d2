"""The young entries of one parameter that were born at the same step, and their own step."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = [
    "YoungCohort",
    "cohorts_of",
    "early_update_damping",
    "step_cohorts_only",
    "young_entry_mask",
]


@dataclass
class YoungCohort:
    """The young entries of one parameter that were born at the same step.

    Attributes:
        at: their index along each dimension, on the parameter's device.
        weights: their weights, as the parameter of the repeated step.
        state: the optimizer's state of ``weights``.
        mu_product: NAdam's running product, which it has taken part in only since its birth.
    """

    parameter: Tensor
    group: int
    born: float
    at: tuple[Tensor, ...]
    weights: Tensor
    state: dict[str, Any] = field(default_factory=dict)
    mu_product: Tensor | None = None

    def load(self, state: dict[str, Any]) -> None:
        """Take over weights, moments and step count before the optimizer changes them."""
        parameter = self.parameter.detach()
        self.weights = parameter[self.at]
        self.state = {
            key: value[self.at] if _is_moment(value, parameter) else _copy(value)
            for key, value in state.items()
        }
        if "step" in self.state:
            self.state["step"] = _steps_since(self.born, self.state["step"])
        if self.mu_product is not None:
            self.state["mu_product"] = self.mu_product

    @property
    def is_stepped(self) -> bool:
        """Whether the optimizer made a step for the parameter."""
        return "step" in self.state and self.parameter.grad is not None

    def store(self, state: dict[str, Any], before: Tensor, share: Any) -> None:
        """Replace what the optimizer computed for these entries by this share of their own step."""
        parameter = self.parameter.detach()
        if isinstance(share, Tensor):
            share = share.to(before)
        parameter[self.at] = before.lerp(self.weights, share)
        for key, value in self.state.items():
            if _is_moment(state.get(key), parameter):
                state[key][self.at] = value


def young_entry_mask(
    birth_steps: dict[int, Tensor], parameter: Tensor, last_mature_step: float
) -> Tensor:
    """Return, on the host, which entries were born after the step ``last_mature_step``."""
    young = torch.zeros(parameter.shape, dtype=torch.bool)
    for steps in birth_steps.values():
        young |= steps > last_mature_step
    return young


def cohorts_of(
    optimizer: Optimizer,
    parameter: Tensor,
    group: int,
    young: Tensor,
    birth_steps: dict[int, Tensor],
) -> Iterator[YoungCohort]:
    """Yield the cohorts of the young entries."""
    at = young.nonzero(as_tuple=True)
    born = torch.full((len(at[0]),), -math.inf, dtype=torch.float64)
    for steps in birth_steps.values():
        born = torch.maximum(born, steps.expand(parameter.shape)[at])
    state = optimizer.state[parameter]
    for step in born.unique().tolist():
        members = tuple(index[born == step].to(parameter.device) for index in at)
        product = None
        if "mu_product" in state:
            age = float(state["step"]) - step
            product = _mu_product(optimizer.param_groups[group], age, state["mu_product"])
        yield YoungCohort(parameter, group, step, members, parameter.new_empty(0), {}, product)


def _mu_product(group: dict[str, Any], age: float, like: Tensor) -> Tensor:
    """Return NAdam's product of momentum factors after ``age`` steps."""
    product = torch.ones_like(like)
    for step in range(1, int(age) + 1):
        product *= group["betas"][0] * (1.0 - 0.5 * 0.96 ** (step * group["momentum_decay"]))
    return product


def _steps_since(born: float, step: Any) -> Any:
    """Return the age at a step count, which RMSprop keeps as an integer in older torch."""
    if isinstance(step, Tensor):
        return (step - born).clamp(min=0)  # a loaded state may be older
    return max(0, int(step - born))


def early_update_damping(group: dict[str, Any], step: Any) -> Any:
    """Return the factor that damps the update of an entry in its own ``step``-th step.

    Fresh Adam updates every weight by the full learning rate in the first step: its mean gradient
    is that of a single batch. The mean over ``k`` batches has the variance ``(1 + b ** k) /
    (1 - b ** k)``, relative to that of old entries. Divided by its root, new entries move as much
    as old ones if gradients are mostly noise. RMSprop has no bias correction: this is the one.

    The share stays on the device of ``step``: reading it would wait for the device.
    """
    age = float(step) if not isinstance(step, Tensor) or step.device.type == "cpu" else step
    if "alpha" in group:
        return (1 - group["alpha"] ** age) ** 0.5
    decayed = group["betas"][0] ** age
    return ((1 - decayed) / (1 + decayed)) ** 0.5


def step_cohorts_only(optimizer: Optimizer, cohorts: Sequence[YoungCohort]) -> None:
    """Make the optimizer's step for the cohorts only, with their own state."""
    twin = object.__new__(type(optimizer))
    twin.__dict__.update(optimizer.__dict__)
    # Fused steps have divided the gradients by the scale already.
    twin.__dict__.pop("grad_scale", None)
    twin.state = defaultdict(dict, {cohort.weights: cohort.state for cohort in cohorts})
    twin.param_groups = [
        {**group, "params": [cohort.weights for cohort in cohorts if cohort.group == number]}
        for number, group in enumerate(optimizer.param_groups)
    ]
    for cohort in cohorts:
        assert cohort.parameter.grad is not None
        cohort.weights.grad = cohort.parameter.grad[cohort.at]
    # Without the wrapper that calls hooks: this is not another step of the training.
    inspect.unwrap(type(optimizer).step)(twin)


def _is_moment(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameter.shape


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
