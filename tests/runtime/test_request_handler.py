"""`RequestHandler`: what becomes of a request, and what may be answered when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from revacnn_lightning.protocol.messages import Applied, Done, Planned, Refused, Request
from revacnn_lightning.protocol.requests import (
    AddFilters,
    Command,
    ControlRun,
    Edit,
    InspectFilter,
    RemoveFilters,
    SetHyperparameter,
)
from revacnn_lightning.runtime.pause import Pause
from revacnn_lightning.runtime.request_handler import RequestHandler
from revacnn_lightning.steering import ForwardProbe
from tests.runtime.test_status import World


class Desk:
    """Answers the requests of a small network."""

    def __init__(self) -> None:
        self.world = World()
        self.world.batch()
        self.forgotten = 0
        self.controls = SimpleNamespace(optimizers=[self.world.optimizer], schedulers=[])
        self.answering = RequestHandler(
            "run",
            self.world.editor,
            self.world.recorder,
            self.world.notices,
            self.controls,  # type: ignore[arg-type]
            Pause(),
            opened=SimpleNamespace(),  # type: ignore[arg-type]
            looking=SimpleNamespace(forget=self._forget, inspect=self._inspect),  # type: ignore[arg-type]
        )

    def ask(self, body: Edit | Command, **options: Any) -> Any:
        return self.answering.answer(Request("r", body, **options), self.world.probe)

    def _forget(self) -> None:
        self.forgotten += 1

    def _inspect(self, request: InspectFilter) -> None:
        raise RuntimeError("a fault of ours")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_plan_changes_nothing_and_an_edit_does(desk: Desk) -> None:
    conv = desk.world.model[0]
    assert isinstance(desk.ask(AddFilters("0", 2), dry_run=True), Planned)
    assert (conv.out_channels, desk.world.notices.version) == (4, 0)
    reply = desk.ask(AddFilters("0", 2), version=0)
    assert isinstance(reply, Applied)
    assert (reply.version, reply.step) == (1, 1)
    assert (conv.out_channels, desk.world.recorder.widths) == (6, [6, 3])
    assert desk.forgotten == 1  # what was being looked at may be another filter now


def test_a_request_for_an_earlier_structure_is_refused(desk: Desk) -> None:
    desk.ask(AddFilters("0", 1))
    for body in (RemoveFilters("0", [4]), InspectFilter("0", 4)):
        reply = desk.ask(body, version=0)
        assert isinstance(reply, Refused)
        assert "now it is 1" in reply.reason
    assert desk.world.model[0].out_channels == 5


def test_a_fault_of_ours_costs_the_request_alone(desk: Desk) -> None:
    reply = desk.ask(InspectFilter("0", 1))
    assert isinstance(reply, Refused)
    assert "internal error (RuntimeError: a fault of ours)" in reply.reason
    assert isinstance(desk.ask(AddFilters("0", 1)), Applied)


def test_a_training_that_cannot_be_changed_can_be_commanded(desk: Desk) -> None:
    desk.answering.edit_refusal = "there are two processes"
    reply = desk.ask(AddFilters("0", 1))
    assert (type(reply), reply.reason) == (Refused, "there are two processes")
    assert isinstance(desk.ask(SetHyperparameter(0, 0, "lr", 0.25)), Done)
    assert desk.world.optimizer.param_groups[0]["lr"] == 0.25
    assert (
        desk.world.told[-1].parameter_groups[0].learning_rate == 0.25
    )  # without waiting for the next beat


def test_during_a_validation_only_that_is_easy_which_takes_no_forward(desk: Desk) -> None:
    def easy(body: Edit | Command, *, dry_run: bool = False) -> bool:
        return desk.answering.is_easy(Request("r", body, dry_run=dry_run))

    assert not easy(AddFilters("0", 1), dry_run=True)  # nothing has been traced yet
    assert isinstance(desk.ask(AddFilters("0", 1), dry_run=True), Planned)
    assert easy(AddFilters("0", 1), dry_run=True)
    assert not easy(AddFilters("0", 1))
    assert easy(ControlRun("pause"))
    assert not easy(ControlRun("checkpoint"))
    assert not easy(ControlRun("stop"))
    nothing = ForwardProbe(forwards=())
    plan = Request("r", RemoveFilters("0", [1]), dry_run=True)
    assert isinstance(desk.answering.answer(plan, lambda: nothing), Planned)
