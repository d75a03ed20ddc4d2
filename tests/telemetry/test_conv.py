from __future__ import annotations

from torch import nn

from revacnn_lightning.telemetry import conv as convs


def test_by_filter_does_not_copy_ordinary_convs():
    conv = nn.Conv2d(4, 8, 3)
    assert convs.by_filter(conv.weight, conv) is conv.weight
