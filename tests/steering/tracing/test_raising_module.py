from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning import AddFilters, EditFailedError
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.tracing.raising_module import raising_module_name


class FixedSize(nn.Module):
    """Reads features whose number is written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 6)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-1] != 32:
            raise RuntimeError("expected 32 features")
        return self.linear(features)


class Columns(nn.Module):
    """A module whose input size is fixed reads the features of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fixed = FixedSize()

    def forward(self, images: Tensor) -> Tensor:
        return self.fixed(self.conv(images).permute(0, 3, 1, 2).flatten(2))


def test_innermost_module_is_found() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(RuntimeError) as info:
        model(torch.zeros(1, 4))
    assert raising_module_name(model, info.value) == "0.0"


def test_error_outside_of_the_model_has_no_module() -> None:
    assert raising_module_name(nn.Linear(1, 1), ValueError("elsewhere")) == ""


def test_rolled_back_edit_names_the_module_that_raised() -> None:
    model = Columns()
    images = torch.randn(2, 1, 8, 8)
    probe = ForwardProbe([lambda: model(images)])
    with pytest.raises(EditFailedError, match=r"in fixed after the edit; the edit was rolled back"):
        Editor(model).apply(AddFilters("conv", 2), probe)
