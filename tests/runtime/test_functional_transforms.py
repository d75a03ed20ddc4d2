"""Tensors of the transforms of torch.func are recognized, in every release of torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from revacnn_lightning.runtime import functional_transforms
from revacnn_lightning.runtime.functional_transforms import (
    is_wrapped_by_transform,
    without_transforms,
)


@pytest.mark.parametrize("old_release", [False, True])
@pytest.mark.parametrize(
    "transform",
    [
        torch.func.vmap,
        lambda function: torch.func.grad(lambda x: function(x).sum()),
        lambda function: torch.func.vmap(torch.func.grad(lambda x: function(x).sum())),
    ],
)
def test_a_wrapped_tensor_is_traced_back_to_the_one_of_the_step(
    transform: Callable, old_release: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old_release:
        monkeypatch.setattr(
            functional_transforms, "_unwrap", functional_transforms._unwrap_privately
        )
    tensor, found = torch.ones(3), []

    def function(x: Tensor) -> Tensor:
        found.append(
            (
                is_wrapped_by_transform(x),
                without_transforms(x) is tensor,
                is_wrapped_by_transform(x * 2),
            )
        )
        return x * 2

    transform(function)(tensor)
    assert found == [(True, True, True)]
    assert not is_wrapped_by_transform(tensor)
    assert without_transforms(tensor) is tensor
