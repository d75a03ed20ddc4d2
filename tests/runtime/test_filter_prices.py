"""Prices of all filters, only while a viewer shows them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from revacnn_lightning import EditRefusedError, RemoveFilters
from revacnn_lightning.client.cheapest_filters import loss_changes_or_estimates
from revacnn_lightning.protocol.messages import Snapshot
from revacnn_lightning.protocol.requests import InspectPrices
from revacnn_lightning.runtime import filter_prices
from revacnn_lightning.runtime.batch import BatchContext, Progress, TrainingBatch
from revacnn_lightning.runtime.filter_prices import FilterPriceCollector
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder
from tests.manual_clock import ManualClock

IMAGES, LABELS = torch.randn(16, 1, 8, 8), torch.arange(16) % 2


class Run:
    """A network in training, with a collector of prices."""

    def __init__(self) -> None:
        self.model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(48, 2),
        )  # fmt: skip
        self.recorder, self.editor = Recorder(self.model), Editor(self.model)
        self.recorder.attach()
        self.editor.channel_groups(ForwardProbe([lambda: self.model(IMAGES[:2])]))
        self.replay, self.clock, self.step = LossReplay(self.model), ManualClock(), 0
        prices = LossChangeMeasurer(self.editor, self.replay)
        self.collector = FilterPriceCollector(
            self.recorder, self.editor, prices, self.replay, self.clock
        )

    def loss(self):
        return F.cross_entropy(self.model(IMAGES), LABELS)

    def train_batch(self):
        """Train a batch; return the message about it, if there is one."""
        self.recorder.begin_batch()
        if self.replay.needs_step(0, self.step):
            self.replay.record((IMAGES, LABELS), 0, self.step, self.loss)
            self.replay.finish_recording()
        self.model.zero_grad()
        self.loss().backward()
        recording = self.recorder.end_batch()
        self.collector.receive(
            Snapshot("", 0, self.step, 0, 0, 0, 0, 0.0, None, [], 0.0, recording.names,
                     recording.values)
        )  # fmt: skip
        context = BatchContext("run", 0, TrainingBatch(Progress(step=self.step)))
        self.step += 1
        return next(iter(self.collector.collect(context)), None), recording.names


@pytest.fixture
def run():
    run = Run()
    yield run
    run.recorder.detach()


def test_prices_are_recorded_only_while_they_are_selected(run):
    message, names = run.train_batch()
    assert (message, "price" in names, run.collector.needs_batch(1)) == (None, False, False)
    run.collector.select(InspectPrices())
    assert run.collector.needs_batch(1)
    message, names = run.train_batch()
    assert "price" in names
    assert (message.estimates >= 0).all()
    assert message.estimates.any()
    run.clock.now += filter_prices.SELECTION_SECONDS
    assert not run.collector.needs_batch(2)
    message, names = run.train_batch()
    assert (message, "price" in names) == (None, False)


def test_wanted_filters_are_measured_first_and_all_others_later(run, monkeypatch):
    measured, measure_one = [], run.collector._measure_one

    def observed(key, context):
        measured.append(key)
        measure_one(key, context)

    monkeypatch.setattr(run.collector, "_measure_one", observed)
    run.collector.select(InspectPrices("2", [1]))
    for _ in range(9):
        run.train_batch()
    assert measured[0] == (1, 1)
    assert len(measured) == len(set(measured)) == 7
    run.clock.now += filter_prices.MESSAGE_SECONDS
    message, _ = run.train_batch()
    assert np.isfinite(message.changes).all()
    assert (message.errors >= 0).all()
    assert message.images >= 8  # two groups, however little time there is


def test_prices_expired_before_all_were_known(run, monkeypatch):
    """With time for one filter in 200 batches, the first two were measured again and again."""
    monkeypatch.setattr(filter_prices, "MAX_IN_A_ROW", 1)
    run.collector.select(InspectPrices())
    message = None
    for _ in range(9):
        found, _ = run.train_batch()
        message = found or message
        run.step += 200
        run.clock.now += filter_prices.MESSAGE_SECONDS
    assert np.isfinite(message.changes).all()
    assert message.oldest == min(step for step, _ in run.collector._measured.values())
    assert message.step - message.oldest > filter_prices.STALE_BATCHES
    renewed = message.oldest
    run.collector.select(InspectPrices())
    for _ in range(3):  # the oldest ones are renewed then
        found, _ = run.train_batch()
        run.clock.now += filter_prices.MESSAGE_SECONDS
    assert found.oldest > renewed


def test_filters_that_cannot_be_removed_kept_the_prices_incomplete(run, monkeypatch):
    plan = run.editor.plan

    def refuse_one(request, *arguments, **options):
        if request == RemoveFilters("2", [1]):
            raise EditRefusedError("no")
        return plan(request, *arguments, **options)

    monkeypatch.setattr(run.editor, "plan", refuse_one)
    run.collector.select(InspectPrices())
    for _ in range(9):
        run.train_batch()
    run.clock.now += filter_prices.MESSAGE_SECONDS
    message, _ = run.train_batch()
    assert message.refused == [5]
    assert np.isnan(message.changes[5])
    np.testing.assert_array_equal(loss_changes_or_estimates(message), message.changes)


def test_a_filter_that_does_not_exist_is_refused(run):
    with pytest.raises(EditRefusedError, match="0 filters"):
        run.collector.select(InspectPrices("missing", [0]))
    with pytest.raises(EditRefusedError, match="3 filters"):
        run.collector.select(InspectPrices("2", [3]))


def snapshot_of(step, prices):
    values = np.array([prices], np.float32)
    return Snapshot("", 0, step, 0, 0, 0, 0, 0.0, None, [], 0.0, ["price"], values)


def test_a_ranking_for_the_run_has_its_own_batches_whoever_looks(run):
    """It was the mean of more batches while a viewer showed prices."""
    run.train_batch()
    run.collector.select(InspectPrices())
    for step in range(1, 9):
        run.collector.receive(snapshot_of(step, [9, 8, 7, 6, 5, 4, 3]))
    run.collector.begin_ranking(9)
    assert run.collector.needs_batch(9)
    assert "price" in run.recorder.statistics
    run.collector.receive(snapshot_of(8, [9, 8, 7, 6, 5, 4, 3]))  # it arrives late
    run.collector.receive(snapshot_of(9, [0, 1, 2, 3, 4, 5, 6]))
    assert run.collector.ranked_filters(2) == []
    run.collector.receive(snapshot_of(10, [0, 1, 2, 3, 4, 5, 6]))
    assert run.collector.ranked_filters(2) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    run.collector.end_ranking()
    assert run.collector.ranked_filters(0) == []
    run.clock.now += filter_prices.SELECTION_SECONDS
    assert not run.collector.needs_batch(11)
    assert "price" not in run.recorder.statistics
