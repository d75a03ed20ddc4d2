"""Judges from a model's outputs whether an edit did what was planned. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditFailedError

__all__ = [
    "DOUBLE_UNIT",
    "SINGLE_UNIT",
    "UnexplainedDifferenceError",
    "are_equal_up_to_rounding",
    "check_output",
    "check_shapes",
    "execution_forbidden",
    "is_rounding",
    "relative_difference",
]

DOUBLE_UNIT = 2.0**-52
SINGLE_UNIT = 2.0**-23
# A difference of this size changes nothing that single precision can represent.
INVISIBLE = 5e-9
ROUNDING_UNITS = 16  # a difference of this many single-precision units of the output is rounding
# Larger differences are never attributed to rounding in double precision: the deepest networks
# amplify it to 1e-6, and a channel in the wrong place changes the output by far more than this.
LARGEST_ROUNDING = 1e-5
# A difference passes if it is at most this many times the effect of one rounding unit. In double
# precision, the factor leaves room for networks that amplify rounding in bursts.
NOISE_FACTOR = 4
DOUBLE_NOISE_FACTOR = 30


class UnexplainedDifferenceError(EditFailedError):
    """The output differs by more than the rounding of its own precision explains."""


def check_output(
    output: Sequence[Tensor],
    expected: Sequence[Tensor],
    rounding_unit: float,
    perturbed: Callable[[], Sequence[Tensor]] | None,
) -> None:
    """Check that the output equals the expected one up to rounding.

    A few rounding units always pass. A deep network amplifies rounding: a larger difference passes
    if a perturbation of all weights by one rounding unit changes the output similarly.

    Args:
        rounding_unit: the rounding unit of the coarsest floating type that a conv computes in.
        perturbed: a function that returns the output with all weights perturbed by
            ``rounding_unit``. It is only called for differences of more than a few rounding units.
            With None, such differences do not pass.

    Raises:
        UnexplainedDifferenceError: rounding does not explain the difference.
    """
    if are_equal_up_to_rounding(output, expected, rounding_unit):
        return
    difference = relative_difference(output, expected)
    is_double = rounding_unit <= DOUBLE_UNIT
    tolerance = _rounding_tolerance(rounding_unit)
    if perturbed is not None and (not is_double or difference <= LARGEST_ROUNDING):
        noise = relative_difference(perturbed(), output)
        tolerance = max(tolerance, (DOUBLE_NOISE_FACTOR if is_double else NOISE_FACTOR) * noise)
    if difference <= tolerance:
        return
    raise UnexplainedDifferenceError(
        f"the output differs by {difference:.1e} from what the edit should give, and rounding "
        f"explains {tolerance:.0e}; the edit was rolled back"
    )


def are_equal_up_to_rounding(
    output: Sequence[Tensor], expected: Sequence[Tensor], rounding_unit: float
) -> bool:
    """Return whether outputs differ by at most a few rounding units, which always pass."""
    if relative_difference(output, expected) <= _rounding_tolerance(rounding_unit):
        return True
    return _is_rounding_of_zero(output, expected, rounding_unit)


def _rounding_tolerance(rounding_unit: float) -> float:
    """Return the relative difference that always passes."""
    return INVISIBLE if rounding_unit <= DOUBLE_UNIT else ROUNDING_UNITS * SINGLE_UNIT


def is_rounding(change: float) -> bool:
    """Return whether a relative difference of outputs is at most a few rounding units."""
    return change <= ROUNDING_UNITS * SINGLE_UNIT


def check_shapes(output: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Check that the output has the shapes that it had before.

    Raises:
        EditFailedError: the output has other shapes.
    """
    now, then = [tuple(t.shape) for t in output], [tuple(t.shape) for t in before]
    if now != then:
        raise EditFailedError(
            f"the output's shapes changed from {then} to {now}; the edit was rolled back"
        )


@contextmanager
def execution_forbidden(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Check that no forward inside runs one of these removed layers.

    Raises:
        EditFailedError: a removed layer was run, because the model refers to it in other places
            than its parent.
    """
    executed: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: executed.append(name))
        for name, module in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if executed:
        raise EditFailedError(
            f"{executed[0]} still runs after its removal, because the model's code holds it "
            "elsewhere than among its submodules; the edit was rolled back"
        )


def _is_rounding_of_zero(
    output: Sequence[Tensor], expected: Sequence[Tensor], rounding_unit: float
) -> bool:
    """Return whether values that cancelled exactly, as in a model minus its copy, nearly do."""
    if [t.shape for t in output] != [t.shape for t in expected]:
        return False
    if any(bool(t.any()) for t in expected):
        return False
    return all(bool((t.abs() <= ROUNDING_UNITS * rounding_unit).all()) for t in output)


def relative_difference(new: Sequence[Tensor], old: Sequence[Tensor]) -> float:
    """Return max |new - old| / max |old| over all outputs; inf if shapes differ or nan appears.

    Infinite and nan entries that are the same in both count as equal.
    """
    if [t.shape for t in new] != [t.shape for t in old]:
        return float("inf")
    change = scale = 0.0
    for a, b in zip(new, old, strict=True):
        if not b.numel():
            continue
        x, y = a.detach().double(), b.detach().double()
        same = (x == y) | (x.isnan() & y.isnan())
        difference = torch.where(same, 0.0, (x - y).abs())
        worst = float(difference.max())
        change = max(change, worst if worst == worst else float("inf"))
        finite = y[y.isfinite()]
        scale = max(scale, float(finite.abs().max()) if finite.numel() else 0.0)
    if change == 0.0:
        return 0.0
    return change / scale if scale > 0 else float("inf")
