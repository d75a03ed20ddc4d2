"""Which map a linear layer reads flattened."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.telemetry.layer_selection import LayerSelection
from revacnn_lightning.telemetry.recording.flattened_inputs import shape_before_flatten
from tests.telemetry import reference

MAPS = torch.randn(4, 3, 5, 6)


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.flatten(1),
        lambda x: x.view(4, -1),
        lambda x: F.dropout(x.flatten(1), 0.5),
        lambda x: F.relu(F.dropout(x.reshape(4, 90))),
    ],
)
@pytest.mark.parametrize("needs_gradient", [False, True])
def test_the_shape_of_a_flattened_map(flatten, needs_gradient: bool) -> None:
    maps = MAPS.clone().requires_grad_(needs_gradient) * 1
    flat = flatten(maps)
    is_known = needs_gradient or flat._base is not None
    assert shape_before_flatten(flat) == ((3, 5, 6) if is_known else ())


@pytest.mark.parametrize("shape", [(3, 8), (2, 3, 4, 5)])
def test_the_shape_of_a_flattened_signal_or_volume(shape: tuple[int, ...]) -> None:
    maps = torch.randn(4, *shape, requires_grad=True) * 1
    assert shape_before_flatten(F.dropout(maps.flatten(1))) == shape


@pytest.mark.parametrize(
    "received", [torch.randn(4, 90), MAPS, MAPS.mean((2, 3)), None, MAPS.flatten(1)[:, :60], 3]
)
def test_what_is_no_flattened_map_has_no_shape(received) -> None:
    assert shape_before_flatten(received) == ()


def test_the_recorder_knows_what_its_linear_layers_read(recorder_of) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc, self.out = nn.Conv2d(3, 4, 3), nn.Linear(48, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.fc(F.dropout(self.conv(x).flatten(1)))))

    model = Net()
    recorder = recorder_of(model)
    recorder.begin_batch()
    reference.train_step(model, MAPS)
    recorder.end_batch()
    assert recorder.layers == [name for name, _ in LayerSelection().select(model)]
    assert recorder.input_shape("fc") == (4, 3, 4)
    assert recorder.input_shape("conv") == ()
