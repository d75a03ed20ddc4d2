"""Layers are examined while a viewer asks for it, and certificates survive any training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from revacnn_lightning import EditRefusedError, RemoveFilters
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import InspectEvidence
from revacnn_lightning.runtime import layer_evidence
from revacnn_lightning.runtime.batch import BatchContext, Progress, TrainingBatch
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.provably_dead_filters import ProvablyDeadFilters
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(16, 1, 8, 8, generator=GENERATOR)
LABELS = torch.arange(16) % 2


class Run:
    """A network in training, whose layers are examined."""

    def __init__(self, norm=False, make_optimizer=torch.optim.SGD, **options):
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(),
            nn.Conv2d(8, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2),
        )  # fmt: skip
        self.optimizer = make_optimizer(self.model.parameters(), lr=0.05, **options)
        self.recorder = Recorder(self.model)
        self.editor = Editor(self.model, [self.optimizer])
        self.recorder.attach()
        self.editor.channel_groups(ForwardProbe([lambda: self.model(IMAGES[:2])]))
        self.replay, self.step, self.seconds = LossReplay(self.model), 0, 0.0
        self.collector = layer_evidence.make_evidence_collector(
            self.model, self.recorder, self.editor, lambda: [self.optimizer],
            LossChangeMeasurer(self.editor, self.replay), self.replay,
        )  # fmt: skip
        self.collector._clock = lambda: self.seconds
        self.collector._budget = TokenBucket(1.0, 1.0, lambda: self.seconds)

    def loss(self):
        return F.cross_entropy(self.model(IMAGES), LABELS)

    def train_batch(self, images=IMAGES):
        """Train a batch; return what was found on examining a layer, if it was."""
        self.recorder.begin_batch()
        self.optimizer.zero_grad()
        if self.replay.needs_step(0, self.step):
            self.replay.record((IMAGES, LABELS), 0, self.step, self.loss)
            self.replay.finish_recording()
        F.cross_entropy(self.model(images), LABELS).backward()
        self.optimizer.step()
        self.recorder.end_batch()
        context = BatchContext("run", 0, TrainingBatch(Progress(step=self.step)))
        self.step += 1
        return list(self.collector.collect(context))

    def examine(self, layer, batches=60):
        """Return what is found on a layer."""
        self.collector.select(InspectEvidence(layer))
        for _ in range(batches):
            for found in self.train_batch():
                if found.layer == layer:
                    return found
        raise AssertionError(f"{layer} was not examined")

    def certified(self, layer="0"):
        return ProvablyDeadFilters(
            self.recorder, self.editor, lambda: [self.optimizer]
        ).find_in_layer(layer)

    def silence(self, filters, *, norm=False):
        """Set the filters of the first layer to zero, or the batch norm's scale."""
        with torch.no_grad():
            for module in (self.model[1],) if norm else (self.model[0],):
                module.weight[filters] = 0
                module.bias[filters] = 0


@pytest.fixture
def make_run():
    runs = []

    def make(*arguments, **options):
        runs.append(Run(*arguments, **options))
        return runs[-1]

    yield make
    for run in runs:
        run.recorder.detach()


def test_nothing_is_sampled_without_a_viewer(make_run):
    run = make_run()
    for _ in range(5):
        assert run.train_batch() == []
    assert run.recorder.activation_samples.layers == frozenset()
    assert run.examine("3").step > 4
    run.seconds = layer_evidence.SELECTION_SECONDS
    run.train_batch()
    assert run.recorder.activation_samples.layers == frozenset()
    with pytest.raises(EditRefusedError, match="no watched layer"):
        run.collector.select(InspectEvidence("missing"))


def test_all_layers_are_examined_one_after_the_other_and_then_left_alone(make_run):
    run = make_run()
    run.collector.select(InspectEvidence())
    found = [one.layer for _ in range(150) for one in run.train_batch()]
    assert sorted(found) == ["0", "3"]
    assert run.recorder.activation_samples.layers == frozenset()


def test_twins_are_found_with_what_their_merge_costs(make_run):
    run = make_run()
    with torch.no_grad():
        run.model[0].weight[5] = run.model[0].weight[2]
        run.model[0].bias[2] = run.model[0].bias[5] = 0.1
        run.model[3].weight[:, 5] = run.model[3].weight[:, 2]
    found = run.examine("0")
    (twins,) = [one for one in found.twins if 5 in one.filters]
    assert sorted(twins.filters) == [2, 5]
    assert twins.share > 0.999
    assert abs(twins.change) < 1e-4
    assert found.samples >= 256


def test_movement_was_unknown_or_out_of_date_after_an_edit(make_run):
    run = make_run(make_optimizer=torch.optim.Adam)
    run.train_batch()
    start = {layer: run.model[layer].weight.detach().clone() for layer in (0, 3)}

    def moved(layer):
        now = run.model[layer].weight.detach()
        distance = (now - start[layer]).flatten(1).norm(dim=1)
        return float((distance / start[layer].flatten(1).norm(dim=1)).median())

    assert run.examine("0").moved > 0.2
    run.editor.apply(RemoveFilters("0", [1]), ForwardProbe([lambda: run.model(IMAGES[:2])]))
    run.recorder.update_structure()
    run.collector.reset()
    run.editor.channel_groups(ForwardProbe([lambda: run.model(IMAGES[:2])]))
    kept = [0, 2, 3, 4, 5, 6, 7]
    start = {0: start[0][kept], 3: start[3][:, kept]}
    examined = {layer: (run.examine(str(layer)).moved, moved(layer)) for layer in (0, 3)}
    # Of layer 3, 63 or 64 of 72 coefficients are compared. An even number has two middle ones.
    assert examined[0][0] == pytest.approx(np.median(examined[0][1]), rel=0.02)
    assert examined[3][0] == pytest.approx(examined[3][1], rel=0.1)


def test_a_run_that_is_resumed_does_not_know_its_start(make_run):
    run = make_run()
    run.step = 100
    assert np.isnan(run.examine("0").moved)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("make_optimizer", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.SGD, {"weight_decay": 0.1}),
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.RMSprop, {"momentum": 0.5}),
    ],
)
def test_certified_filters_stay_silent_for_any_input(make_run, norm, make_optimizer, options):
    run = make_run(norm, make_optimizer, **options)
    run.silence([1, 4], norm=norm)
    run.train_batch()
    assert run.certified() == ([1, 4], "")
    removed = torch.zeros(8, dtype=torch.bool)
    removed[[1, 4]] = True
    for scale in (1.0, 30.0, 1e3):
        images = scale * torch.randn(16, 1, 8, 8, generator=GENERATOR)
        run.train_batch(images)
        for training in (True, False):
            run.model.train(training)
            assert (run.model[:3](images)[:, removed] == 0).all()
        run.model.train()
    assert run.certified() == ([1, 4], "")


def test_a_filter_whose_momentum_would_move_it_is_not_certified(make_run):
    run = make_run(make_optimizer=torch.optim.Adam)
    run.train_batch()  # the momentum is not zero now
    run.silence([1])
    run.train_batch()
    assert run.certified() == ([], "")


def test_a_negative_bias_may_overshoot_zero_by_decay_in_the_gradient(make_run):
    run = make_run(make_optimizer=torch.optim.Adam, weight_decay=0.1)
    run.silence([1])
    with torch.no_grad():
        run.model[0].bias[1] = -0.001
    run.train_batch()
    assert run.certified() == ([], "")
    with torch.no_grad():
        run.model[0].bias[1] = 0.0


def test_an_unknown_optimizer_and_a_missing_relu_certify_nothing(make_run):
    class Own(torch.optim.SGD):
        pass

    run = make_run(make_optimizer=Own)
    run.silence([1])
    run.train_batch()
    assert run.certified() == ([], "")
    assert "no ReLU" in run.certified("6")[1]
