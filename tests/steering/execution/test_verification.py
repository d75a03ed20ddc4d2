"""Distinguishing a wrong edit from rounding that a deep network amplifies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering import ForwardProbe
from revacnn_lightning.steering.execution.reference_outputs import output_with_perturbed_weights
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.verification import check_output

ROUNDING_UNIT = torch.finfo(torch.float64).eps


class Amplifier(nn.Module):
    """Its output changes by ``gain`` rounding units if its weight changes by one."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.weight = nn.Parameter(torch.ones(64, dtype=torch.float64))

    def forward(self) -> Tensor:
        return 1 + self.gain * (self.weight - 1)


def difference_is_accepted(gain: float, difference: float) -> bool:
    model = Amplifier(gain)
    now = model().detach()
    expected = now.clone()
    expected[3] += difference

    def perturbed() -> list[Tensor]:
        return output_with_perturbed_weights(
            Transaction(), model, ForwardProbe([model]), ROUNDING_UNIT
        )

    try:
        check_output([now], [expected], ROUNDING_UNIT, perturbed)
    except EditFailedError:
        return False
    assert torch.equal(model.weight, torch.ones_like(model.weight))  # the perturbation is undone
    return True


@pytest.mark.parametrize(
    ("gain", "difference", "accepted"),
    [
        (1, 1e-9, True),  # below the tolerance
        (1, 1e-7, False),  # nothing explains it
        (1e7, 1e-7, True),
        (1e9, 4e-7, True),  # as seen in a network of 170 convs
        (1e13, 1e-4, False),  # a network this unstable proves nothing
    ],
)
def test_differences_are_accepted_if_rounding_explains_them(
    gain: float, difference: float, accepted: bool
) -> None:
    assert difference_is_accepted(gain, difference) is accepted
