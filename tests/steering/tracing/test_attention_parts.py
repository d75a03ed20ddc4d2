"""Attention with parameters for each head, over channels, and with a padded value.

The network after a removal equals the obviously smaller one: one channel less in each head.
"""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters, Undo
from revacnn_lightning.steering import Editor, ForwardProbe

HEADS, WIDTH, KEPT = 2, 6, [0, 2, 3, 5]  # channel 1 of each head of three is removed
SEEDED = torch.Generator().manual_seed(0)
X, UNSEEN = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=SEEDED)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 1)
        self.q, self.k, self.v = (nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(3))
        self.project, self.classes = nn.Conv2d(WIDTH, 5, 1), nn.Linear(5, 4)
        self.bias = nn.Parameter(torch.randn(HEADS, 16, 16))
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1) + 0.5)
        self.heads = HEADS

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images).relu()
        b, _, h, w = x.shape
        q, k, v = (each(x).reshape(b, self.heads, -1, h * w) for each in (self.q, self.k, self.v))
        y = self.attend(q, k, v).reshape(b, -1, h, w)
        return self.classes(self.project(y).mean((2, 3)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError


class PositionBias(Block):
    """A bias for each head, as in Swin transformers (Liu et al. 2021)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q.transpose(-1, -2) @ k) * 0.5 + self.bias
        return v @ scores.softmax(-1).transpose(-1, -2)


class CrossCovariance(Block):
    """Attention of channels to channels (El-Nouby et al. 2021), with a scale for each head."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        return (scores * self.temperature).softmax(-1) @ v


class ReluLinear(Block):
    """Linear attention whose sums come from a row of ones, as in EfficientViT (Cai et al. 2023)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        padded = F.pad(v, (0, 0, 0, 1), value=1.0)
        y = padded @ k.relu().transpose(-1, -2) @ q.relu()
        return y[:, :, :-1] / (y[:, :, -1:] + 1e-3)


# The layers whose channels go along with those of the first.
KINDS = [(PositionBias, ("q", "k")), (PositionBias, ("v",)), (CrossCovariance, ("q",)),
         (CrossCovariance, ("k", "v")), (ReluLinear, ("q", "k")), (ReluLinear, ("v",))]  # fmt: skip


def keep(tensor: Tensor, dim: int) -> nn.Parameter:
    return nn.Parameter(tensor.detach().index_select(dim, torch.tensor(KEPT)))


def reaches_projection(kind: type[Block], layers: tuple[str, ...]) -> bool:
    """Return whether the result has the channels of these layers."""
    return ("q" if kind is CrossCovariance else "v") in layers


@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_channels_of_heads_with_parameters_of_their_own_were_refused(
    kind: type[Block], layers: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    model = kind().double().eval()
    editor, probe = Editor(model), ForwardProbe([partial(model, X)])
    smaller, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    for layer in map(smaller.get_submodule, layers):
        layer.weight, layer.bias = keep(layer.weight, 0), keep(layer.bias, 0)
    if reaches_projection(kind, layers):
        smaller.project.weight = keep(smaller.project.weight, 1)
    editor.apply(RemoveFilters(layers[0], [1, 4]), probe)
    with torch.no_grad():
        assert (model(UNSEEN) - smaller(UNSEEN)).abs().max() < 1e-12
    assert {n: v.shape for n, v in model.state_dict().items()} == {
        n: v.shape for n, v in smaller.state_dict().items()
    }
    editor.apply(Undo(), probe)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    is_mixing = bool(editor.plan(AddFilters(layers[0]), probe).confirmation)
    assert is_mixing == (layers not in [("v",), ("q",)])  # their channels stay apart
    editor.apply(AddFilters(layers[0], confirmed=is_mixing), probe)
    assert model.get_submodule(layers[0]).out_channels == WIDTH + HEADS
    model(UNSEEN)
