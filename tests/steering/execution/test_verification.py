"""Distinguishing a wrong edit from rounding that a deep network amplifies."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.execution.reference_outputs import output_with_perturbed_weights
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.execution.verification import (
    UnexplainedDifferenceError,
    check_output,
)
from revacnn_lightning.steering.tracing.rules import normalizations
from tests.steering import nets

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


class Standardized(nn.Conv2d):
    """Standardizes its weight with a batch norm, as timm's ScaledStdConv2d does."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, 0.02 * weight, self.bias)


class BesideSkip(nn.Module):
    """A weight-standardized branch that contributes little beside a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 512, 1), Standardized(512, 32, 3)
        self.f, self.skip = nn.Linear(32, 5), nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.f(self.b(self.a(x).relu()).mean((2, 3)))
        return self.skip(x.flatten(1)) + 0.1 * branch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_change_of_a_tenth_of_a_thousandth_passed_as_rounding(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if no rule sees that a weight is standardized, the output shows it."""
    monkeypatch.setattr(normalizations, "_uses_batch_statistics", lambda call: False)
    torch.manual_seed(0)
    model, x = BesideSkip().to(dtype), torch.randn(2, 3, 8, 8).to(dtype)
    before = nets.checksum(model)
    with pytest.raises(EditFailedError, match="differs"):
        Editor(model).apply(requests.AddFilters("a"), ForwardProbe([partial(model, x)]))
    assert nets.checksum(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_correct_edits_pass_in_every_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nets.build(nets.Residual).to(dtype)
    x = nets.images().to(dtype)
    editor, probe = Editor(model), ForwardProbe([partial(model, x)])
    for request in (
        requests.AddFilters("stem.0"),
        requests.AddFilters("a.0.0", split_from=1),
        requests.RemoveFilters("stem.0", [2]),
        requests.RemoveFilters("b.0.0", [1]),
        requests.InsertLayer("a.1"),
    ):
        editor.apply(request, probe)


def test_a_model_without_double_precision_is_judged_by_its_own_rounding() -> None:
    class OnlySingle(nets.Plain):
        def forward(self, x: Tensor) -> Tensor:
            if self.fc(x.new_zeros(1, 32)).dtype != torch.float32:
                raise TypeError("only single precision")
            return super().forward(x)

    model = nets.build(OnlySingle).float()
    probe = ForwardProbe([partial(model, nets.images().float())])
    Editor(model).apply(requests.RemoveFilters("conv1", [1]), probe)


@pytest.mark.parametrize("unit", [2.0**-52, 2.0**-23])
def test_outputs_that_cancelled_exactly_differed_infinitely(unit: float) -> None:
    """A network minus its copy is zero before an edit, and a rounding unit afterwards."""
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    check_output([zeros + unit], [zeros], unit, None)
    for wrong in (zeros + 100 * unit, zeros + torch.nan, torch.zeros(2, 4, dtype=torch.float64)):
        with pytest.raises(UnexplainedDifferenceError):
            check_output([wrong], [zeros], unit, None)
