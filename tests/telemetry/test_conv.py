from __future__ import annotations

import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry import conv as convs


def test_by_filter_does_not_copy_ordinary_convs():
    conv = nn.Conv2d(4, 8, 3)
    assert convs.filters_first(conv.weight, conv) is conv.weight


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_a_scripted_module_holds_its_tensors_in_tables_of_its_own() -> None:
    scripted = torch.jit.script(nn.Conv2d(1, 2, 3))
    weight = convs.stored_tensor(scripted, "weight")
    assert weight is not None
    assert weight.shape == (2, 1, 3, 3)
    assert convs.stored_tensor(scripted, "missing") is None
