"""Viewers see the images of a batch; the forward that explains them receives what it expects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from revacnn_lightning.runtime.batch_reader import BatchReader, make_image_forward
from tests.small import TwoConvs, batches


def test_the_users_forward_received_images_where_it_expects_a_batch():
    seen: list[Any] = []

    def forward(module: nn.Module, batch: Any) -> torch.Tensor:
        seen.append(batch)
        return module(batch[0])

    batch = next(iter(batches()))
    run = make_image_forward(TwoConvs(), lambda: batch, forward, None)
    assert run is not None
    image = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    assert run(image).shape == (1, 2)
    images, labels = seen[0]
    assert images is image
    assert labels.shape == (1,)


def test_a_failing_function_of_images_is_reported_once(caplog: pytest.LogCaptureFixture):
    reader = BatchReader(lambda batch: batch["pixels"])
    for batch in batches(3):
        assert reader.find_images(batch) is None
    assert caplog.text.count("the option images=... raised TypeError") == 1
