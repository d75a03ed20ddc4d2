"""What changes the function unavoidably is measured, and refused unless it is confirmed."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from tests.steering import nets
from tests.steering.tracing.test_tracer import Base, ChannelAttention, LayerNormed


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class WeightStandardized(Base):
    def extra(self) -> None:
        self.conv2 = Standardized(6, 4, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return x


class PlainLayerNorm(Base):
    """No parameters: only an attribute counts the channels."""

    def extra(self) -> None:
        self.norm = nn.LayerNorm(6, elementwise_affine=False)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class WholeLayerNorm(Base):
    """Normalizes over channels, height and width."""

    def extra(self) -> None:
        self.norm = nn.LayerNorm([6, 8, 8])

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)


class SingleGroup(Base):
    def extra(self) -> None:
        self.norm = nn.GroupNorm(1, 6)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)


class RmsNormed(Base):
    def extra(self) -> None:
        self.norm = nn.RMSNorm(6)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNormed(Base):
    """ConvNeXt V2's global response normalization (Woo et al. 2023)."""

    def extra(self) -> None:
        self.gamma, self.beta = (nn.Parameter(torch.randn(1, 6, 1, 1)) for _ in range(2))

    def middle(self, x: Tensor) -> Tensor:
        strength = x.norm(2, (2, 3), keepdim=True)
        relative = strength / (strength.mean(1, keepdim=True) + 1e-6)
        return self.gamma * (x * relative) + self.beta + x


class EfficientAttention(Base):
    """ECA: a conv slides along the channels."""

    def extra(self) -> None:
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def middle(self, x: Tensor) -> Tensor:
        y = self.along(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * torch.sigmoid(y)


KINDS = [
    ChannelAttention, LayerNormed, PlainLayerNorm, WholeLayerNorm, SingleGroup, ResponseNormed,
    WeightStandardized, EfficientAttention, *([RmsNormed] if hasattr(nn, "RMSNorm") else []),
]  # fmt: skip


@pytest.mark.parametrize("split", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_growth_is_refused_with_the_measured_change_until_it_is_confirmed(
    kind: type[nn.Module], split: int | None
) -> None:
    model, editor, probe = nets.editor_of(kind)
    nets.step(model, editor.optimizers[0])
    before, output = nets.checksum(model, *editor.optimizers), nets.output(model)
    request = requests.AddFilters("conv1", split_from=split)
    plan = editor.plan(request, probe)
    with pytest.raises(EditRefusedError, match=r"changes all others.*confirmed=True") as refusal:
        editor.apply(request, probe)
    assert nets.checksum(model, *editor.optimizers) == before
    assert plan.confirmation in str(refusal.value)
    measured = float(re.search(r"changes by ([\d.e+-]+)", plan.output_effect)[1])
    request = requests.AddFilters("conv1", split_from=split, confirmed=True)
    applied = editor.apply(request, probe)
    change = (nets.output(model) - output).abs().max() / output.abs().max()
    assert change.item() == pytest.approx(applied.output_change, rel=1e-6)
    assert measured == pytest.approx(applied.output_change, rel=0.05)
    assert model.conv1.out_channels == 7
    nets.step(model, editor.optimizers[0])
    editor.apply(requests.RemoveFilters("conv1", [1]), probe)
    nets.step(model, editor.optimizers[0])
    for _ in range(2):
        editor.apply(requests.Undo(), probe)
    nets.step(model, editor.optimizers[0])


def test_undo_of_a_confirmed_growth_is_bit_identical() -> None:
    model, editor, probe = nets.editor_of(PlainLayerNorm)
    before = nets.checksum(model, *editor.optimizers)
    editor.apply(requests.AddFilters("conv1", confirmed=True), probe)
    assert model.norm.normalized_shape == (7,)
    editor.apply(requests.Undo(), probe)
    assert nets.checksum(model, *editor.optimizers) == before


def test_an_exact_growth_needs_no_confirmation() -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    plan = editor.plan(requests.AddFilters("conv1"), probe)
    assert plan.confirmation == ""
    assert plan.summary().confirmation == ""
