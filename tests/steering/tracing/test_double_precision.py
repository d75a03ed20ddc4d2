"""Forwards in double precision compute what the model does, with less rounding."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.steering import ForwardProbe
from revacnn_lightning.steering.tracing.forward_probe import evaluate_first_forward
from tests.steering import nets


class Writing(nn.Module):
    """Writes into new tensors, in place, and into a buffer; asks for types by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.conv(x)
        out = torch.zeros(y.shape[0], 8, *y.shape[2:])
        out[:, :4] = y
        out[:, 4:].add_(y.float() / 3)
        return torch.softmax(out.flatten(1), 1, dtype=torch.float32) * out.new_ones(1)


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x).mean((2, 3))


KINDS = [*nets.NETS.values(), Writing, Autocast]


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_the_double_precision_model(kind: type[nn.Module]) -> None:
    single = nets.build(kind).float()
    x = nets.images().float()
    double = copy.deepcopy(single).double()
    with torch.no_grad():
        if isinstance(double, Autocast):
            expected = double.net(x.double()).mean((2, 3))
        elif isinstance(double, Writing):
            torch.set_default_dtype(torch.float64)
            try:
                y = double.conv(x.double())
                expected = F.softmax(torch.cat([y, y / 3], 1).flatten(1), 1)
            finally:
                torch.set_default_dtype(torch.float32)
        else:
            expected = double.eval()(x.double())
    before = nets.checksum(single)
    (found,) = evaluate_first_forward(single, ForwardProbe([partial(single, x)]), double=True)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    assert nets.checksum(single) == before


def test_noise_perturbs_weights_and_images() -> None:
    model = nets.build(nets.Plain).float()
    probe = ForwardProbe([partial(model, nets.images().float())])
    exact, noisy = (
        evaluate_first_forward(model, probe, double=True, noise=n)[0] for n in (0.0, 1e-10)
    )
    change = ((exact - noisy).abs().max() / exact.abs().max()).item()
    assert 1e-12 < change < 1e-8
