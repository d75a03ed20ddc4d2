"""Growth gains are computed on request, and new filters get the best direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from revacnn_lightning import AddFilters, EditRefusedError
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.requests import InspectGrowth, RemoveFilters
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.directed_initializer import UNKNOWN, DirectedInitializer
from revacnn_lightning.runtime.growth_gains import NOT_READ, PAUSED, GrowthGainCollector
from revacnn_lightning.runtime.request_handler import RequestHandler
from tests.runtime.test_pruning import IMAGES, PrunedRun


class GrowingRun(PrunedRun):
    """A network in training whose growth gains are computed."""

    def __init__(self, *, has_loss: bool = True) -> None:
        super().__init__(has_loss=has_loss)
        self.gains = GrowthGainCollector(self.model, self.recorder, self.editor, self.replay)
        initializer = DirectedInitializer(self.editor, self.gains)
        self.handler = RequestHandler(
            self.editor,
            self.recorder,
            self.status,
            None,
            {InspectGrowth: self.gains},
            directed_initializer=initializer,
        )  # type: ignore[arg-type]

    def compute(self):
        """Return the message with the gains."""
        self.gains.select(InspectGrowth())
        for _ in range(3):
            self.train_batch()
            batch = self.batch()
            self.editor.channel_groups(batch.make_probe())
            found = self.gains.collect(BatchContext("run", 0, batch))
            if found:
                return found[0]
        raise AssertionError("no gains were computed")

    def gradient_of_newest(self, layer, reader, width):
        """Return ∂L/∂v of the last filters of a layer."""
        self.model.zero_grad()
        self.loss().backward()
        return reader.weight.grad[:, -width:]


@pytest.fixture
def run():
    run = GrowingRun()
    yield run
    run.recorder.detach()


def test_gains_are_computed_once_per_request_and_change_nothing(run: GrowingRun) -> None:
    before = [p.clone() for p in run.model.parameters()]
    found = run.compute()
    assert np.isfinite(found.gains).all()
    assert (found.gains >= found.second).all()
    assert (found.gains > 0).all()
    assert (found.images, found.notes) == (16, ["", ""])
    assert not run.gains.collect(BatchContext("run", 0, run.batch()))
    for known, now in zip(before, run.model.parameters(), strict=True):
        assert torch.equal(known, now)
    assert not run.model[0]._forward_hooks


def test_a_directed_filter_keeps_the_function_and_has_a_larger_gradient(run: GrowingRun) -> None:
    run.compute()
    before = run.model(IMAGES)
    run.apply(AddFilters("0", 1))
    random = run.gradient_of_newest(run.model[0], run.model[2], 1).norm()
    run.apply(RemoveFilters("0", [6]))
    run.compute()
    direction = run.gains.directions["0"][0]
    reply = run.apply(AddFilters("0", 2, directed=True))
    assert "direction of its growth gain" in reply.plan.title
    assert torch.allclose(run.model(IMAGES), before, atol=1e-6)
    new = run.model[0].weight[-2:].detach()
    cosine = torch.nn.functional.cosine_similarity(new[0].flatten(), direction.flatten(), dim=0)
    assert cosine == pytest.approx(1, abs=1e-5)
    assert abs(float((new[0] * new[1]).sum())) < 1e-5  # orthogonal
    gradient = run.gradient_of_newest(run.model[0], run.model[2], 2)
    assert gradient[:, 0].norm() > random


def test_a_direction_that_is_not_known_is_refused(run: GrowingRun) -> None:
    reply = run.apply(AddFilters("0", 1, directed=True))
    assert UNKNOWN in reply.reason
    run.compute()
    run.apply(AddFilters("0", 1))
    run.gains.reset()  # as after every edit of a run
    assert UNKNOWN in run.apply(AddFilters("0", 1, directed=True)).reason
    run.compute()
    assert "split" in run.apply(AddFilters("0", 1, split_from=0, directed=True)).reason
    assert run.widths == (7, 8)


def test_without_a_loss_there_is_no_gain() -> None:
    run = GrowingRun(has_loss=False)
    found = run.compute()
    run.recorder.detach()
    assert np.isnan(found.gains).all()
    assert found.notes == ["there is no loss"] * 2


def test_a_layer_that_nothing_reads_has_no_gain(run: GrowingRun) -> None:
    run.compute()
    assert run.gains._gain("0", []) == NOT_READ


def test_the_request_is_refused_by_nobody(run: GrowingRun) -> None:
    reply = run.handler.handle(Request("r", InspectGrowth()), run.batch())
    assert reply.detail == ""
    with pytest.raises(EditRefusedError):
        DirectedInitializer(run.editor, run.gains).new_filter_directions(
            AddFilters("2", directed=True)
        )


def test_a_paused_run_let_the_request_wait_for_its_timeout(run: GrowingRun) -> None:
    run.gains.select(InspectGrowth())
    (found,) = run.gains.collect(BatchContext("run", 0, run.batch(), is_paused=True))
    assert np.isnan(found.gains).all()
    assert set(found.notes) == {PAUSED}
    assert not run.gains.is_wanted


def test_a_paused_run_answers_from_the_step_that_it_has_recorded(run: GrowingRun) -> None:
    expected = run.compute()
    run.gains.select(InspectGrowth())
    (found,) = run.gains.collect(BatchContext("run", 0, run.batch(), is_paused=True))
    np.testing.assert_array_equal(found.gains, expected.gains)
    assert found.notes == ["", ""]
