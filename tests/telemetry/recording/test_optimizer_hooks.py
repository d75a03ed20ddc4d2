"""What is measured around an optimizer step is not part of the training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from revacnn_lightning.telemetry import Recorder


class Functions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def functions_of_steps(model: nn.Module, kind: type[torch.optim.Optimizer]) -> list[str]:
    """Return the torch functions that a mode sees in two optimizer steps with a closure."""
    optimizer = kind(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.ones(1, 1, 5, 5)).sum().backward()
        with Functions() as mode:
            optimizer.step(lambda: None)
    return mode.names


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_function_mode_saw_the_weights_measured_after_a_step(kind):
    torch.manual_seed(0)
    plain = functions_of_steps(nn.Conv2d(1, 2, 3), kind)
    model = nn.Conv2d(1, 2, 3)
    recorder = Recorder(model)
    recorder.attach()
    recorder.begin_batch()
    assert functions_of_steps(model, kind) == plain
    assert recorder.end_batch().layers == [""]
    recorder.detach()
