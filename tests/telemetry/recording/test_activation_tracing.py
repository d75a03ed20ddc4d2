from __future__ import annotations

import torch
from torch import nn

from revacnn_lightning.telemetry.recording import activation_tracing as following


def test_a_trail_follows_the_very_tensor():
    trail = following.ActivationTrace()
    a, b = torch.ones(2), torch.ones(2)
    trail.mark(a, "conv")
    assert trail.take(a, b) == "conv"
    assert trail.take(b, a) is None
    assert trail.take("no tensor", b) is None


def test_in_place_modules_are_followed_and_other_writes_are_not():
    trail = following.ActivationTrace()
    a = torch.ones(2)
    trail.mark(a, "conv")
    returned = nn.ReLU(inplace=True)(a)
    assert trail.take(a, returned) == "conv"
    trail.mark(a, "conv")
    a += 1
    assert trail.take(a, torch.ones(2)) is None
    assert trail.take(a, nn.ReLU(inplace=True)(a)) is None


def test_a_trail_keeps_nothing_alive():
    trail = following.ActivationTrace()
    a = torch.ones(2)
    trail.mark(a, "conv")
    address = id(a)
    del a
    impostors = [torch.ones(2) for _ in range(20)]
    assert all(trail.take(t, t) is None for t in impostors if id(t) == address)


def test_kinds():
    assert following.is_normalization(nn.SyncBatchNorm(3))
    assert following.is_nonlinearity(nn.ReLU6())
    assert not following.is_nonlinearity(nn.Softmax2d())
    assert not following.is_normalization(nn.MaxPool2d(2))
