"""Edits make torch compile again, but only what it has compiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    torch._dynamo.reset()
    calls: list[int] = []
    reset = torch._dynamo.reset
    monkeypatch.setattr(torch._dynamo, "reset", lambda: (calls.append(1), reset()))
    yield calls
    reset()


def freeze_one(model: nn.Module) -> None:
    Editor(model).apply(
        requests.Freeze("0", [1]), ForwardProbe([lambda: model(torch.ones(2, 1, 8, 8))])
    )


def test_an_edit_resets_what_torch_has_compiled(resets: list[int]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    torch.compile(model, backend="eager")(torch.ones(2, 1, 8, 8))
    freeze_one(model)
    assert resets == [1]


def test_an_edit_does_not_import_the_compiler_where_nothing_is_compiled(resets: list[int]) -> None:
    """With a GPU, a reset imports torch._inductor, which takes seconds."""
    freeze_one(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()))
    assert resets == []
