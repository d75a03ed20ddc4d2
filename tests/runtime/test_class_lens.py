"""Which classes filters answer to, against per-image maps and gradients of plain autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning import EditRefusedError
from revacnn_lightning.protocol.requests import InspectClass, InspectClasses
from revacnn_lightning.runtime import class_lens
from revacnn_lightning.runtime.batch import BatchContext, Progress, TrainingBatch
from revacnn_lightning.runtime.batch_classes import NUMBERS, BatchClasses
from revacnn_lightning.runtime.class_lens import NO_MATCH, TOO_MANY, ClassResponseCollector
from revacnn_lightning.runtime.class_sums import HALF_LIFE
from revacnn_lightning.telemetry import Recorder
from tests.manual_clock import ManualClock

BATCHES = 5


class Run:
    """A network that trains batch by batch while its classes are inspected."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.clock = ManualClock()
        self.model = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(48, 3),
        )  # fmt: skip
        self.recorder = Recorder(self.model)
        self.recorder.attach()
        self.collector = ClassResponseCollector(self.recorder, ["a", "b", "c"], self.clock)
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.train_batch()  # finds the modules that return the maps
        self.batches.clear()

    def train_batch(self, classes: BatchClasses | None = None, size: int = 8) -> list[Any]:
        images, labels = torch.randn(size, 2, 8, 8), torch.randint(0, 3, (size,))
        self.batches.append((images, labels))
        self.recorder.begin_batch()
        F.cross_entropy(self.model(images), labels).backward()
        self.recorder.end_batch()
        found = BatchClasses(labels, "", ()) if classes is None else classes
        batch = TrainingBatch(Progress(step=len(self.batches)), get_classes=lambda: found)
        self.clock.now += 1
        return self.collector.collect(BatchContext("run", 0, batch))

    def pause(self) -> list[Any]:
        return self.collector.collect(BatchContext("run", 0, TrainingBatch(), is_paused=True))

    def slow_pools(self, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the pooled maps, the pooled gradients, the labels and the weights of all images.

        The labels and weights are (n,), the others (n, C).
        """
        rows = []
        for age, (images, labels) in enumerate(reversed(self.batches)):
            maps = self.model[: layer + 2](images)
            loss = F.cross_entropy(self.model[layer + 2 :](maps), labels)
            (gradient,) = torch.autograd.grad(loss, maps)
            for image in range(len(images)):
                rows.append(
                    (
                        maps[image].detach().mean((1, 2)).numpy(),
                        gradient[image].sum((1, 2)).numpy(),
                        int(labels[image]),
                        0.5 ** (age / HALF_LIFE),
                    )
                )
        activation, gradient, labels, weights = map(np.array, zip(*rows, strict=True))
        return activation, gradient, labels, weights


@pytest.fixture
def run():
    run = Run()
    yield run
    run.recorder.detach()


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (values * weights[:, None]).sum(0) / weights.sum()


def test_the_means_of_each_class_are_those_of_its_images(run: Run) -> None:
    run.collector.select(InspectClasses("2"))
    for _ in range(BATCHES):
        [lens] = run.train_batch()
    activation, gradient, labels, weights = run.slow_pools(2)
    assert (lens.classes, lens.names, lens.batches) == ([0, 1, 2], ["a", "b", "c"], BATCHES)
    for column, index in enumerate(lens.classes):
        own = labels == index
        assert lens.counts[column] == pytest.approx(weights[own].sum(), rel=1e-5)
        expected = weighted_mean(activation[own], weights[own])
        np.testing.assert_allclose(lens.activation[:, column], expected, rtol=1e-4, atol=1e-6)
        expected = weighted_mean(gradient[own], weights[own])
        np.testing.assert_allclose(lens.gradient[:, column], expected, rtol=1e-4, atol=1e-6)
    mean = weighted_mean(activation, weights)
    deviation = np.sqrt(weighted_mean((activation - mean) ** 2, weights))
    scale = np.sqrt(weighted_mean(gradient**2, weights))
    np.testing.assert_allclose(lens.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(lens.deviation, deviation, rtol=1e-3)
    np.testing.assert_allclose(lens.gradient_scale, scale, rtol=1e-4)
    np.testing.assert_allclose(
        lens.effects(), (lens.activation - mean[:, None]) / deviation[:, None], rtol=1e-2, atol=1e-3
    )
    assert lens.strongest() == lens.effects().argmax(1).tolist()


def test_the_answers_to_a_class_are_its_effects_on_all_filters(run: Run) -> None:
    run.collector.select(InspectClass(1))
    run.collector.select(InspectClasses("0"))
    for _ in range(BATCHES):
        lens, answers = run.train_batch()
    np.testing.assert_allclose(answers.effects[:4], lens.effects()[:, 1], rtol=1e-3, atol=1e-4)
    assert answers.effects.shape == (7,)
    assert np.isfinite(answers.effects).all()
    assert (answers.class_index, answers.names, answers.classes) == (1, ["a", "b", "c"], 3)
    run.collector.select(InspectClass(2))
    _, other = run.train_batch()
    assert other.class_index == 2
    assert not np.allclose(other.effects, answers.effects)


def test_the_scale_of_the_loss_is_divided_out(run: Run) -> None:
    found = []
    run.collector.select(InspectClasses("2"))
    images, labels = torch.randn(8, 2, 8, 8), torch.randint(0, 3, (8,))
    for scale in (1.0, 64.0):
        run.collector.reset()
        run.recorder.begin_batch(loss_scale=torch.tensor(scale))
        (F.cross_entropy(run.model(images), labels) * scale / 2).backward()
        run.recorder.end_batch(grad_scale=0.5)
        run.clock.now += 1
        batch = TrainingBatch(get_classes=lambda: BatchClasses(labels, ""))
        [lens] = run.collector.collect(BatchContext("run", 0, batch))
        found.append(lens.gradient)
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_batches_that_are_not_sampled_keep_their_fast_hooks(run: Run) -> None:
    run.collector.select(InspectClass(0))
    run.train_batch()
    run.recorder._schedule._governor.sampling_intervals["classes"] = 2
    sampled = []
    for _ in range(4):
        run.recorder.begin_batch()
        sampled.append(bool(run.recorder._activation_hooks._batch.reducers))
        F.cross_entropy(run.model(run.batches[0][0]), run.batches[0][1]).backward()
        run.recorder.end_batch()
    assert sorted(sampled) == [False, False, True, True]


def test_inspecting_changes_no_gradient(run: Run) -> None:
    run.train_batch()
    images, labels = run.batches[0]
    run.model.zero_grad()
    F.cross_entropy(run.model(images), labels).backward()
    expected = [p.grad.clone() for p in run.model.parameters()]
    run.collector.select(InspectClasses("0"))
    run.collector.select(InspectClass(0))
    run.model.zero_grad()
    state = torch.get_rng_state()
    run.recorder.begin_batch()
    F.cross_entropy(run.model(images), labels).backward()
    run.recorder.end_batch()
    assert torch.equal(torch.get_rng_state(), state)
    for gradient, p in zip(expected, run.model.parameters(), strict=True):
        assert torch.equal(p.grad, gradient)


def test_nothing_is_pooled_without_a_viewer_and_after_the_selection_has_expired(run: Run) -> None:
    assert run.train_batch() == []
    assert run.recorder.pooled_maps.layers == frozenset()
    run.collector.select(InspectClasses("0"))
    run.collector.select(InspectClass(0))
    assert run.recorder.pooled_maps.layers == {"0", "2"}
    assert run.train_batch()
    assert run.recorder.external_overheads
    run.clock.now += class_lens.SELECTION_SECONDS
    assert run.train_batch() == []
    assert run.recorder.pooled_maps.layers == frozenset()
    assert not run.recorder.external_overheads


def test_the_cost_counts_towards_the_overhead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[dict[str, float]] = []

    def update(step: float, cost: dict[str, float], fixed: float) -> bool:
        costs.append(cost)
        return False

    run.collector.select(InspectClasses("0"))
    run.train_batch()
    monkeypatch.setattr(run.recorder._schedule._governor, "update", update)
    run.train_batch()
    assert costs[0]["classes"] > 0


def test_targets_that_are_no_classes_are_named(run: Run) -> None:
    run.collector.select(InspectClasses("0"))
    run.collector.select(InspectClass(0))
    lens, answers = run.train_batch(BatchClasses(note=NUMBERS))
    assert (lens.note, answers.note, lens.classes) == (NUMBERS, NUMBERS, [])
    assert lens.activation.shape == (4, 0)
    assert lens.selectivity().tolist() == [0, 0, 0, 0]
    assert np.isnan(answers.effects).all()


def test_labels_that_do_not_match_the_maps_are_named(run: Run) -> None:
    run.collector.select(InspectClasses("0"))
    [lens] = run.train_batch(BatchClasses(torch.zeros(4, dtype=torch.int64), ""))
    assert lens.note == NO_MATCH.format(8, 4)
    [lens] = run.train_batch(BatchClasses(torch.full((8,), 5000), ""))
    assert lens.note == TOO_MANY
    [lens] = run.train_batch(BatchClasses(torch.full((8,), -1), ""))
    assert (lens.note, lens.classes) == ("", [])


def test_an_image_without_a_class_and_one_that_is_not_finite_do_not_count(run: Run) -> None:
    run.collector.select(InspectClasses("0"))
    labels = torch.tensor([0, 0, 1, 1, 2, 2, -100, -100])
    images = torch.randn(8, 2, 8, 8)
    images[0] = torch.nan
    run.recorder.begin_batch()
    run.model(images)
    run.recorder.end_batch()
    batch = TrainingBatch(get_classes=lambda: BatchClasses(labels, ""))
    [lens] = run.collector.collect(BatchContext("run", 0, batch))
    assert lens.counts.tolist() == [1, 2, 2]
    assert np.isfinite(lens.activation).all()
    assert np.isnan(lens.gradient).all()  # no backward pass
    assert np.isnan(lens.pulls()).all()
    assert lens.conflict().tolist() == [0, 0, 0, 0]


def test_an_edit_discards_the_sums_and_a_missing_layer_is_refused(run: Run) -> None:
    run.collector.select(InspectClasses("0"))
    run.train_batch()
    run.collector.reset()
    [lens] = run.train_batch()
    assert lens.batches == 1
    with pytest.raises(EditRefusedError, match="no watched layer"):
        run.collector.select(InspectClasses("5"))


def test_a_viewer_that_opens_in_a_pause_gets_the_last_message(run: Run) -> None:
    run.collector.select(InspectClasses("0"))
    [lens] = run.train_batch()
    assert run.pause() == [lens]
    assert run.pause() == []
    run.collector.select(InspectClasses("0"))
    assert run.pause() == [lens]


def test_the_number_of_layers_is_limited() -> None:
    model = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(class_lens.MAX_LAYERS + 1)))
    recorder = Recorder(model)
    collector = ClassResponseCollector(recorder)
    for index in range(class_lens.MAX_LAYERS + 1):
        collector.select(InspectClasses(str(index)))
    assert recorder.pooled_maps.layers == {str(i + 1) for i in range(class_lens.MAX_LAYERS)}


def test_answers_to_another_class_are_sent_once_a_batch_has_counted(run: Run) -> None:
    """The page said that no image of the class was there, before any batch had counted."""
    run.collector.select(InspectClass(1))
    run.train_batch()
    run.collector.select(InspectClass(2))
    run.clock.now += 2
    unrecorded = TrainingBatch(Progress(step=2))
    assert run.collector.collect(BatchContext("run", 0, unrecorded)) == []
    [answers] = run.train_batch()
    assert answers.class_index == 2


def test_answers_to_a_class_that_does_not_exist_were_waited_for(run):
    run.collector.select(InspectClass(99))
    [answers] = run.train_batch()
    assert answers.note == "There is no class 99: the data has 3 classes, 0 to 2."
    run.collector.select(InspectClass(2))
    [answers] = run.train_batch()
    assert answers.note == ""


def test_without_names_a_class_is_missing_once_enough_images_were_without_it(run):
    run.collector = ClassResponseCollector(run.recorder, (), run.clock)
    notes = []
    for _ in range(3 * 50 // 8 + 1):
        run.collector.select(InspectClass(99))
        notes.append(run.train_batch()[0].note)
    assert notes[:-1] == [""] * (len(notes) - 1)
    assert "no image of class 99 among 152 images; the largest class so far is 2" in notes[-1]
