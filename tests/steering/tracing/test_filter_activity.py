"""A new filter is called silent only if it is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from tests.steering import nets


class Sum(nn.Module):
    """Two convs are summed; the next conv has a single filter."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.c = nn.Conv2d(4, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.sum = self.a(x) + self.b(x)
        return self.c(self.sum.relu())


class Residual(nn.Module):
    """A residual branch adds to what a stem produces."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c1, self.c2 = (nn.Conv2d(n, 8, 3, padding=1) for n in (3, 8, 8))
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.fc((x + self.c2(self.c1(x).relu())).mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4)
        self.c = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.b(self.a(x))))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x) * self.b(x))


@pytest.mark.parametrize("kind", [Sum, Residual, Depthwise, Twice, Tied])
def test_a_new_filter_that_is_active_was_called_silent(kind: type[nn.Module]):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(2, 3, 8, 8)
    forwards: list[int] = []

    def forward() -> Tensor:
        forwards.append(1)
        return model(x)

    plan = Editor(model).apply(requests.AddFilters("a"), ForwardProbe([forward])).plan
    assert plan.notes == []
    assert len(forwards) < 8  # it is not drawn again, either


@pytest.mark.parametrize("kind", [Sum, Depthwise])
def test_a_filter_of_a_silent_input_is_called_silent(kind: type[nn.Module]):
    model = kind()
    for conv in (model.a, getattr(model, "b", None)):
        conv.register_parameter("bias", None)
    plan = (
        Editor(model)
        .apply(requests.AddFilters("a"), ForwardProbe([partial(model, torch.zeros(2, 3, 8, 8))]))
        .plan
    )
    assert "silent" in plan.notes[0]


def test_one_silent_filter_of_several_is_drawn_again():
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv2(torch.relu(self.conv1(x)))

    x = torch.full((1, 3, 1, 1), 1.0)  # one pixel: silent for about half of all filters
    for seed in range(10):
        torch.manual_seed(seed)
        model = Gate()
        editor = Editor(model)
        editor.journal.version = seed  # the seed of the initialization
        probe = ForwardProbe([partial(model, x)])
        plan = editor.apply(requests.AddFilters("conv1", count=2), probe).plan
        is_active = bool((model.conv1(x) > 0)[0, -2:].all())
        assert is_active or plan.notes


def test_the_images_of_the_nets_silence_no_new_filter():
    for kind in nets.NETS.values():
        _, editor, probe = nets.editor_of(kind)
        layer = next(iter(editor.channel_groups(probe).filters))
        if layer not in editor.refusals(probe):
            assert not editor.apply(requests.AddFilters(layer), probe).plan.notes
