"""Filters of two layers that are flattened to one dimension: those in blocks can be edited."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe

IMAGES = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class PositionMixer(nn.Module):
    """A conv, a linear layer over its positions, and one that reads all channels and units."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.positions = nn.Linear(64, 16)
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x).relu().flatten(2)
        return self.head(self.positions(maps).relu().flatten(1))


def test_channels_flattened_with_positions_were_all_coupled_to_these() -> None:
    model = PositionMixer().double()
    editor, probe = Editor(model), ForwardProbe([lambda: model(IMAGES)])
    without = copy.deepcopy(model)
    with torch.no_grad():
        without.head.weight.view(10, 6, 16)[:, 1] = 0
    editor.apply(requests.RemoveFilters("conv", [1]), probe)
    assert model.head.in_features == 80
    torch.testing.assert_close(model(IMAGES), without(IMAGES), rtol=0, atol=1e-12)


def test_new_channels_flattened_with_positions_had_too_few_columns() -> None:
    model = PositionMixer().double()
    before = model(IMAGES)
    editor, probe = Editor(model), ForwardProbe([lambda: model(IMAGES)])
    editor.apply(requests.AddFilters("conv", 2), probe)
    assert model.head.in_features == 128
    torch.testing.assert_close(model(IMAGES), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "request_", [requests.RemoveFilters("positions", [3]), requests.AddFilters("positions", 2)]
)
def test_units_between_those_of_other_channels_are_refused_by_name(
    request_: requests.Edit,
) -> None:
    model = PositionMixer().double()
    before = model(IMAGES)
    editor, probe = Editor(model), ForwardProbe([lambda: model(IMAGES)])
    with pytest.raises(EditRefusedError, match="flattened with other filters before head"):
        editor.apply(request_, probe)
    assert torch.equal(model(IMAGES), before)
