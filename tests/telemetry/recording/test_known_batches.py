"""Batches that sample different statistics, in turns: each kind has a layout of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry import REQUESTED_STATISTICS, STATISTICS, Recorder
from revacnn_lightning.telemetry.recording.known_batches import KnownBatches
from tests.telemetry import reference


class SampledTraining:
    """A training that samples some statistics on some batches only.

    Without a step, it accumulates gradients, or discards them (``skips_steps``), as mixed precision
    does where they are not finite.
    """

    def __init__(self, intervals: dict[str, int], *, skips_steps: bool = False) -> None:
        self.skips_steps = skips_steps
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.5)
        everything = (*STATISTICS, *REQUESTED_STATISTICS)
        self.recorder = Recorder(self.model, statistics=everything)
        self.recorder._schedule._governor.sampling_intervals = intervals
        self.recorder.attach()
        self.n_evaluated = 0
        update = self.recorder._assembler.update_layout

        def count(*args):
            self.n_evaluated += 1
            return update(*args)

        self.recorder._assembler.update_layout = count  # type: ignore[method-assign]

    def train_batch(self, step: int, *, must_step: bool, images: int = 4):
        """Train a batch; return its recording, and the expected values of some statistics.

        These are the norms of all filters, and the activations and prices of the first layer.
        """
        x = torch.randn(images, 1, 9, 9, generator=torch.Generator().manual_seed(step))
        maps = self.model[1](self.model[0](x))
        loss = self.model[2:](maps).square().mean()
        products = maps * torch.autograd.grad(loss, maps)[0]
        prices = (images * products.sum((2, 3)).square().sum(0)).sqrt().detach().numpy()
        self.recorder.begin_batch()
        self.model(x).square().mean().backward()
        if must_step:
            self.optimizer.step()
        recording = self.recorder.end_batch()
        if must_step or self.skips_steps:
            self.optimizer.zero_grad()
        convs = [module for module in self.model if isinstance(module, nn.Conv2d)]
        norms = np.concatenate([reference.norm(conv.weight, conv) for conv in convs])
        return recording, norms, maps.detach().sum((2, 3)).mean(0).numpy(), prices

    def rows(self, recording, name):
        return recording.values[recording.names.index(name)]


INTERVALS = [
    {"update_ratio": 8},
    {"weight_norm": 2, "update_ratio": 3},
    {"weight_norm": 4, "update_ratio": 2, "signal_to_noise": 2},
    {"update_ratio": 4, "activation_gradient": 3, "firing": 2, "optimizer_gradient": 2},
    {"update_ratio": 3, "price": 2, "signal_to_noise": 4},
]


@pytest.mark.parametrize("intervals", INTERVALS)
@pytest.mark.parametrize("batches_per_step", [1, 2, 3, 4])
@pytest.mark.parametrize("skips_steps", [False, True])
def test_sampled_statistics_are_those_of_their_batch(
    intervals: dict[str, int], batches_per_step: int, skips_steps: bool
):
    training = SampledTraining(intervals, skips_steps=skips_steps)
    try:
        for step in range(60):
            images = 4 if step % 17 else 3  # as the last batch of an epoch
            must_step = step % batches_per_step == batches_per_step - 1
            recording, norms, activations, prices = training.train_batch(
                step, must_step=must_step, images=images
            )
            measured = training.rows(recording, "weight_norm")
            known = ~np.isnan(measured)
            np.testing.assert_allclose(measured[known], norms[known], rtol=1e-5)
            np.testing.assert_allclose(
                training.rows(recording, "activation")[:3], activations, rtol=1e-4, atol=1e-5
            )
            measured = training.rows(recording, "price")[:3]
            is_due = (step + recording.names.index("price")) % intervals.get("price", 1) == 0
            assert is_due != np.isnan(measured).all()
            if is_due:
                np.testing.assert_allclose(measured, prices, rtol=1e-4, atol=1e-6)
    finally:
        training.recorder.detach()


def test_a_kind_of_batch_is_evaluated_once():
    training = SampledTraining({"weight_norm": 2, "update_ratio": 4})
    try:
        for step in range(40):
            training.train_batch(step, must_step=True)
        evaluated = training.n_evaluated
        for step in range(40, 80):
            training.train_batch(step, must_step=True)
        assert training.n_evaluated == evaluated
    finally:
        training.recorder.detach()


def test_a_batch_after_an_unknown_one_had_the_layout_of_the_batch_before_that():
    """The unknown batch may have measured the norm of a weight in another place."""
    known, events = KnownBatches(), ["an event"]
    layout: Any = object()
    weights: Any = SimpleNamespace(
        norm=object(), norm_after_step=None, update_norm=None, optimizer_gradient=None
    )
    known.keep("firing", events, [weights], layout)
    assert known.find_layout("firing", events, [weights]) is layout
    assert known.find_layout("gradient", events, [weights]) is None
    slot, weights.norm = weights.norm, object()
    assert known.find_layout("firing", events, [weights]) is None
    weights.norm = slot
    assert known.find_layout("firing", events, [weights]) is layout
