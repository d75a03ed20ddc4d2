"""Which outgoing weights a reinitialized filter starts without, and what its plan says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.outgoing_columns import outgoing_zeroing_edits
from tests.steering import nets


class Summed(nn.Module):
    """A conv whose output is added to the images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.conv(x)).mean((2, 3))


class Normalized(nn.Module):
    """A group norm over the filters of a conv."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.GroupNorm(1, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x))).mean((2, 3))


def columns(
    kind: type[nn.Module], layer: str, filters: list[int], *edits: requests.Edit
) -> dict[tuple[str, int], list[int]]:
    model, editor, probe = nets.editor_of(kind)
    for edit in edits:
        editor.apply(edit, probe)
    context = PlanningContext(model, editor.channel_groups(probe), [], editor.frozen_filters)
    edits_ = outgoing_zeroing_edits(context, layer, filters)
    return {(edit.tensor, edit.dim): edit.indices for edit in edits_}


def test_the_columns_of_all_readers_are_found() -> None:
    assert columns(nets.Plain, "conv1", [2]) == {("conv2.weight", 1): [2]}
    assert columns(nets.Plain, "conv2", [1]) == {("fc.weight", 1): [4, 5, 6, 7]}


def test_depthwise_convs_in_between_keep_their_weights() -> None:
    class Depthwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nets.conv_bn(3, 6)
            self.depthwise = nets.conv_bn(6, 6, groups=6)
            self.last = nn.Conv2d(6, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.depthwise(self.first(x))).mean((2, 3))

    assert columns(Depthwise, "first.0", [1]) == {("last.weight", 1): [1]}


@pytest.mark.parametrize(
    ("kind", "layer", "edits", "reason"),
    [
        (nets.Residual, "a.1", [], "coupled to filters of"),
        (nets.Grouped, "grouped.0", [], "coupled to filter"),
        (nets.Auxiliary, "aux", [], "output"),
        (nets.Plain, "conv1", [requests.Freeze("conv2", [0])], "conv2.*has frozen filters"),
        (Normalized, "conv", [], "change others"),
        (Summed, "conv", [], "meet a tensor of fixed size"),
    ],
)
def test_columns_that_others_share_are_refused(
    kind: type[nn.Module], layer: str, edits: list[requests.Edit], reason: str
) -> None:
    with pytest.raises(EditRefusedError, match=reason):
        columns(kind, layer, [1], *edits)
