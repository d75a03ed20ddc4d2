"""Judges from a model's outputs whether an edit did what was planned. Changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditFailedError

__all__ = ["check_output", "check_shapes", "forbid_execution", "relative_difference"]

# Larger differences are never attributed to rounding: the deepest networks amplify double-precision
# rounding to 1e-6, and a channel in the wrong place changes the output by far more than this.
LARGEST_ROUNDING = 1e-5
# A difference passes if it is at most this many times the effect of one rounding unit.
NOISE_FACTOR = 30


def check_output(
    output: Sequence[Tensor],
    expected: Sequence[Tensor],
    rounding_unit: float,
    perturbed: Callable[[], Sequence[Tensor]],
) -> None:
    """Check that the output equals the expected one up to rounding.

    The tolerance is a third of the square root of the rounding unit (5e-9 in double, 1e-4 in
    single precision). A deep network may amplify rounding beyond that: a larger difference passes
    if a perturbation of all weights by one rounding unit changes the output similarly.

    Args:
        rounding_unit: of the coarsest floating type that a conv computes in.
        perturbed: returns the output with all weights perturbed by ``rounding_unit``; only called
            for differences between the two tolerances.

    Raises:
        EditFailedError: rounding does not explain the difference.
    """
    difference = relative_difference(output, expected)
    tolerance = math.sqrt(rounding_unit) / 3
    if difference <= tolerance:
        return
    if difference <= max(min(NOISE_FACTOR * tolerance, 0.1), LARGEST_ROUNDING):
        noise = relative_difference(perturbed(), output)
        if difference <= NOISE_FACTOR * noise:
            return
    raise EditFailedError(
        f"the output differs by {difference:.1e} from what the edit should give (tolerance "
        f"{tolerance:.0e}); the edit was rolled back"
    )


def check_shapes(output: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Check that the output has the shapes it had.

    Raises:
        EditFailedError: it has others.
    """
    now, then = [tuple(t.shape) for t in output], [tuple(t.shape) for t in before]
    if now != then:
        raise EditFailedError(
            f"the output's shapes changed from {then} to {now}; the edit was rolled back"
        )


@contextmanager
def forbid_execution(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Check that no forward inside runs one of these removed layers.

    Raises:
        EditFailedError: one was run: the model refers to it elsewhere than in its parent.
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
