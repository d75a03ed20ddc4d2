"""The confusion of validation data, against predictions of the network one image at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from revacnn_lightning.runtime.batch import BatchContext, TrainingBatch
from revacnn_lightning.runtime.batch_classes import NUMBERS, BatchClasses
from revacnn_lightning.runtime.validation_confusion import (
    COMPILED,
    NO_SCORES,
    ConfusionRecorder,
)

CONTEXT = BatchContext("run", 2, TrainingBatch())
IMAGES, LABELS = torch.randn(12, 1, 4, 4), torch.arange(12) % 3


class Metric(nn.Module):
    """Returns a matrix of as many rows as there are images, as a metric may."""

    def forward(self, scores: Tensor) -> Tensor:
        return torch.ones(len(scores), 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.head, self.metric = nn.Conv2d(1, 4, 3), nn.Linear(16, 3), Metric()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().flatten(1))


def validate(
    recorder: ConfusionRecorder, step: Callable[[Tensor], object], labels: Tensor = LABELS
) -> None:
    """Run the validation step on batches of four images."""
    for images, own in zip(IMAGES.split(4), labels.split(4), strict=True):
        recorder.begin_batch(lambda own=own: BatchClasses(own, "", ["a", "b", "c"]))
        with torch.no_grad():
            step(images)
        recorder.end_batch()


@pytest.mark.parametrize("through", ["the network", "its modules"])
def test_the_counts_are_those_of_single_predictions(through: str) -> None:
    net = Net()
    recorder = ConfusionRecorder(net, lambda: True)

    def step(images: Tensor) -> None:
        if through == "the network":
            scores = net(images)
        else:
            scores = net.head(net.conv(images).relu().flatten(1))
        net.metric(scores)

    validate(recorder, step)
    found = recorder.finish(CONTEXT)
    assert found is not None
    expected = np.zeros((3, 3))
    for image, label in zip(IMAGES, LABELS, strict=True):
        expected[label, net(image[None]).argmax()] += 1
    np.testing.assert_array_equal(found.counts, expected)
    assert found.accuracy() == pytest.approx(np.trace(expected) / 12)
    assert (found.names, found.version, found.note) == (["a", "b", "c"], 2, "")
    assert not nn_module._global_forward_hooks
    assert recorder.finish(CONTEXT) is None  # nothing was counted since


def test_without_a_viewer_nothing_is_observed() -> None:
    net = Net()
    recorder = ConfusionRecorder(net, lambda: False)

    def step(images: Tensor) -> None:
        assert not nn_module._global_forward_hooks
        net(images)

    validate(recorder, step)
    assert recorder.finish(CONTEXT) is None


def test_what_cannot_be_counted_is_named() -> None:
    net = Net()
    recorder = ConfusionRecorder(net, lambda: True)
    validate(recorder, lambda images: net.conv(images))
    assert recorder.finish(CONTEXT).note == NO_SCORES
    validate(recorder, net, LABELS + 7)  # classes that the network does not know
    assert recorder.finish(CONTEXT).note == NO_SCORES
    recorder.begin_batch(lambda: BatchClasses(note=NUMBERS))
    recorder.end_batch()
    assert recorder.finish(CONTEXT).note == NUMBERS
    net.conv._modules["_orig_mod"] = nn.Identity()
    recorder.begin_batch(lambda: BatchClasses(LABELS, ""))
    recorder.end_batch()
    assert recorder.finish(CONTEXT).note == COMPILED


def test_a_validation_that_fails_leaves_no_hook() -> None:
    recorder = ConfusionRecorder(Net(), lambda: True)
    recorder.begin_batch(lambda: BatchClasses(LABELS[:4], ""))
    assert nn_module._global_forward_hooks
    recorder.close()
    assert not nn_module._global_forward_hooks
