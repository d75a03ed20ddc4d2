"""Pruning to a budget: what a round removes, and how it is paused, ended and undone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from revacnn_lightning import ControlPruning, EditRefusedError, PruneTo
from revacnn_lightning.protocol.messages import Request, Snapshot
from revacnn_lightning.protocol.requests import RemoveFilters, Undo
from revacnn_lightning.runtime import pruning_choice
from revacnn_lightning.runtime.batch import Progress, TrainingBatch
from revacnn_lightning.runtime.filter_prices import FilterPriceCollector
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.pruning import NONE_LEFT, REACHED, UNDONE, WAITING, Pruning
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.runtime.request_handler import RequestHandler
from revacnn_lightning.runtime.request_queue import PendingRequest
from revacnn_lightning.runtime.status import StructureAndStatusPublisher
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(16, 1, 8, 8, generator=GENERATOR)
LABELS = torch.arange(16) % 2


class PrunedRun:
    """A network that is pruned while it trains. Its second layer has two filters of no use."""

    def __init__(self, *, has_loss: bool = True) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(128, 2),
        )  # fmt: skip
        with torch.no_grad():
            self.model[5].weight.view(2, 8, 16)[:, [2, 5]] *= 1e-4
        self.recorder, self.editor = Recorder(self.model), Editor(self.model)
        self.recorder.attach()
        self.replay = LossReplay(self.model, refusal="" if has_loss else "there is no loss")
        prices = LossChangeMeasurer(self.editor, self.replay)
        self.ranking = FilterPriceCollector(self.recorder, self.editor, prices, self.replay)
        self.status = StructureAndStatusPublisher(
            "run", self.model, self.editor, self.recorder,
            get_optimizers=list, publish=lambda _: None,
        )  # fmt: skip
        collectors = {object: self.ranking}
        self.handler = RequestHandler(
            self.editor, self.recorder, self.status, None, collectors, prices=prices
        )  # type: ignore[arg-type]
        self.pending: list[tuple[Request, PendingRequest]] = []
        self.pruning = Pruning(
            self.recorder, self.editor, self.ranking, prices, self.replay, self.submit
        )
        self.removed: list[RemoveFilters] = []
        self.step = 0

    @property
    def widths(self) -> tuple[int, int]:
        return self.model[0].out_channels, self.model[2].out_channels

    def submit(self, body):
        pending = PendingRequest("r")
        self.pending.append((Request("r", body), pending))
        return pending

    def apply(self, body):
        return self.handler.handle(Request("r", body), self.batch())

    def batch(self) -> TrainingBatch:
        probe = ForwardProbe([lambda: self.model(IMAGES[:2])])
        return TrainingBatch(
            Progress(step=self.step),
            make_probe=lambda: probe,
            is_loss_ready=lambda: self.replay.is_ready(self.editor.version),
        )

    def train(self, batches: int) -> None:
        for _ in range(batches):
            self.pruning.advance(self.batch(), self.status.version)
            for request, pending in self.pending:
                if isinstance(request.body, RemoveFilters):
                    self.removed.append(request.body)
                pending.set_reply(self.handler.handle(request, self.batch()))
            self.pending.clear()
            self.train_batch()

    def train_batch(self) -> None:
        self.recorder.begin_batch()
        if self.replay.needs_step(self.editor.version, self.step):
            self.replay.record((IMAGES, LABELS), self.editor.version, self.step, self.loss)
            self.replay.finish_recording()
        self.model.zero_grad()
        self.loss().backward()
        recording = self.recorder.end_batch()
        self.status.step = self.step = self.step + 1
        self.status.publish_order_if_changed()
        self.ranking.receive(
            Snapshot("", 0, self.step, 0, 0, 0, 0, 0.0, None, [], 0.0, recording.names,
                     recording.values)
        )  # fmt: skip

    def loss(self):
        return F.cross_entropy(self.model(IMAGES), LABELS)


@pytest.fixture
def run():
    run = PrunedRun()
    yield run
    run.recorder.detach()


@torch.no_grad()
def changes_of_all_filters(run: PrunedRun) -> dict[tuple[str, int], float]:
    """Return the change of the loss if a filter contributes nothing, one after the other."""
    before, changes = float(run.loss()), {}
    for layer, width in (("0", 6), ("2", 8)):
        for index in range(width):
            mask = torch.ones(1, width, 1, 1)
            mask[0, index] = 0
            relu = run.model[int(layer) + 1]
            hook = relu.register_forward_hook(lambda _, __, out, mask=mask: out * mask)
            changes[layer, index] = float(run.loss()) - before
            hook.remove()
    return changes


def test_the_cheapest_filters_of_all_layers_are_removed_first(
    run: PrunedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning_choice, "MIN_MEASURED", 14)
    monkeypatch.setattr(pruning_choice, "SECONDS_EACH", 60.0)  # so that all images are used
    changes = changes_of_all_filters(run)
    expected = sorted(changes, key=changes.__getitem__)[:2]
    run.pruning.start(PruneTo(macs=0.3, filters=2, every=4), run.step)
    run.train(7)
    assert {(one.layer, i) for one in run.removed for i in one.filters} == set(expected)
    state = run.pruning.state
    assert state.cost == pytest.approx(sum(changes[one] for one in expected), abs=1e-5)
    assert (state.state, state.removed) == ("running", 2)
    assert 0 < state.target < state.now < state.start


def test_pruning_ends_at_the_target(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(parameters=0.5, filters=2, every=2), run.step)
    before = sum(p.numel() for p in run.model.parameters())
    run.train(40)
    state, now = run.pruning.state, sum(p.numel() for p in run.model.parameters())
    assert (state.state, state.note) == ("ended", REACHED)
    assert (state.start, state.now) == (before, now)
    assert now <= before // 2
    assert state.removed == 14 - sum(run.widths)
    assert state.edits == len(run.editor.journal.entries) == len(run.removed)
    widths = run.widths
    run.train(10)
    assert run.widths == widths


def test_undo_restores_all_that_was_removed(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(parameters=0.6, filters=2, every=2), run.step)
    run.train(30)
    assert run.widths != (6, 8)
    assert "edits of the pruning" in run.pruning.control(ControlPruning("undo"))
    run.train(2)
    state = run.pruning.state
    assert (run.widths, state.state) == ((6, 8), "ended")
    assert (state.removed, state.edits, state.now, state.cost) == (0, 0, state.start, 0)
    with pytest.raises(EditRefusedError, match="newest"):
        run.pruning.control(ControlPruning("undo"))


def test_a_later_edit_is_never_undone_with_it(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(parameters=0.6, filters=2, every=2), run.step)
    run.train(30)
    run.apply(RemoveFilters("0", [0]))
    with pytest.raises(EditRefusedError, match="newest"):
        run.pruning.control(ControlPruning("undo"))


def test_pruning_waits_while_it_is_paused(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(macs=0.3, filters=1, every=2), run.step)
    run.train(4)
    run.pruning.control(ControlPruning("pause"))
    widths = run.widths
    run.train(6)
    assert (run.widths, run.pruning.state.state) == (widths, "paused")
    run.pruning.control(ControlPruning("resume"))
    run.train(6)
    assert sum(run.widths) < sum(widths)
    run.pruning.control(ControlPruning("end"))
    with pytest.raises(EditRefusedError, match="ended already"):
        run.pruning.control(ControlPruning("resume"))


def test_it_does_not_remove_again_what_a_person_has_brought_back(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(macs=0.3, filters=2, every=2), run.step)
    run.train(5)
    run.apply(Undo())
    widths = run.widths
    run.train(6)
    assert (run.widths, run.pruning.state.state, run.pruning.state.note) == (
        widths, "paused", UNDONE,
    )  # fmt: skip


def test_an_undo_right_after_an_edit_was_taken_for_the_undo_of_another(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(macs=0.3, filters=2, every=2), run.step)
    while not run.removed:
        run.train(1)  # the pruning has not received the reply yet
    widths = run.widths
    run.apply(Undo())
    run.train(4)
    assert run.widths != widths
    assert (run.pruning.state.state, run.pruning.state.edits) == ("paused", 0)


def test_each_layer_keeps_a_filter(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(parameters=0.001, filters=8, every=1), run.step)
    run.train(30)
    assert run.widths == (1, 1)
    assert (run.pruning.state.state, run.pruning.state.note) == ("ended", NONE_LEFT)


def test_without_a_loss_the_ranking_decides() -> None:
    run = PrunedRun(has_loss=False)
    run.pruning.start(PruneTo(macs=0.3, filters=2, every=3), run.step)
    run.train(5)
    run.recorder.detach()
    assert (run.removed[0].layer, sorted(run.removed[0].filters)) == ("2", [2, 5])
    assert "ranked only: there is no loss" in run.pruning.state.note
    assert run.pruning.state.cost != run.pruning.state.cost


def test_it_waits_for_statistics(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(macs=0.3, every=1), run.step)
    run.pruning.advance(TrainingBatch(Progress(step=1)), 0)
    assert (run.pruning.state.state, run.pruning.state.note) == ("running", WAITING)


def test_rounds_came_late_where_recording_for_viewers_is_limited(run: PrunedRun) -> None:
    """With the default limit, the statistic was sampled on every 64th batch."""
    governor = run.recorder._schedule._governor
    governor.budget, governor.sampling_intervals = 1e-9, {"price": 64, "weight_norm": 64}
    run.pruning.start(PruneTo(macs=0.3, filters=1, every=6), run.step)
    run.train(14)
    assert len(run.removed) == 2
    assert governor.sampling_intervals["price"] == 64


def test_the_statistic_is_recorded_only_right_before_a_round(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(macs=0.3, filters=1, every=9), run.step)
    recorded = []
    for _ in range(18):
        run.train(1)
        recorded.append("price" in run.recorder.statistics)
        assert run.ranking.needs_batch(run.step) == recorded[-1]
    assert recorded == [*4 * [False], *5 * [True], *4 * [False], *5 * [True]]
    run.pruning.control(ControlPruning("pause"))
    assert "price" not in run.recorder.statistics


@pytest.mark.parametrize("request_", [PruneTo(), PruneTo(macs=0.5, parameters=0.5)])
def test_one_target_is_needed(run: PrunedRun, request_: PruneTo) -> None:
    with pytest.raises(EditRefusedError, match="one target"):
        run.pruning.start(request_, 0)


def test_a_second_pruning_is_refused_while_one_runs(run: PrunedRun) -> None:
    run.pruning.start(PruneTo(macs=0.5), 0)
    with pytest.raises(EditRefusedError, match="already"):
        run.pruning.start(PruneTo(macs=0.4), 0)
