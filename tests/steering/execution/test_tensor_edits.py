"""Tensors, their optimizer state and the sizes of their modules change together."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.s, self.b1, self.b2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.b2.weight = self.b1.weight
        self.f = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.s(x).relu()
        return self.f((self.b1(h) + self.b2(h)).relu().mean((2, 3)))


@pytest.mark.parametrize(
    "request_",
    [
        requests.RemoveFilters("b1", [1, 2]),
        requests.AddFilters("b2"),
        requests.RemoveFilters("s", [0]),
        requests.AddFilters("s", count=2),
    ],
)
def test_the_second_owner_of_a_tied_weight_had_the_wrong_size_after_an_undo(request_):
    model, x = Tied(), torch.rand(2, 3, 6, 6)
    editor, probe = Editor(model), ForwardProbe([partial(model, x)])
    before = model(x)

    def check() -> None:
        for conv in (model.b1, model.b2):
            assert (conv.out_channels, conv.in_channels) == conv.weight.shape[:2]
            assert len(conv.bias) == conv.out_channels

    editor.apply(request_, probe)
    check()
    editor.apply(requests.Undo(), probe)
    check()
    assert torch.equal(model(x), before)
