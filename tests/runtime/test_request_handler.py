"""`RequestHandler`: how requests are handled, and which can be handled when."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from revacnn_lightning import AddFilters, Applied, ControlRun, RemoveFilters, SetHyperparameter
from revacnn_lightning.protocol.messages import Done, Planned, Refused, Request
from revacnn_lightning.protocol.requests import Command, Edit, InspectFilter
from revacnn_lightning.runtime.batch import Progress, TrainingBatch, make_probe_without_forwards
from revacnn_lightning.runtime.controls import RunController
from revacnn_lightning.runtime.request_handler import RequestHandler
from tests.runtime.test_status import SmallRun


class HandlerWithRun:
    """A request handler for a small network."""

    def __init__(self) -> None:
        self.run = SmallRun()
        self.run.train_batch()
        self.resets = 0
        self.batch = TrainingBatch(Progress(step=1), make_probe=self.run.make_probe)
        controls = SimpleNamespace(optimizers=[self.run.optimizer], schedulers=[])
        self.handler = RequestHandler(
            self.run.editor,
            self.run.recorder,
            self.run.status,
            RunController("run", controls),  # type: ignore[arg-type]
            {InspectFilter: SimpleNamespace(reset=self._reset, select=self._select)},  # type: ignore[dict-item]
        )

    def handle(self, body: Edit | Command, **options: Any) -> Any:
        return self.handler.handle(Request("r", body, **options), self.batch)

    def _reset(self) -> None:
        self.resets += 1

    def _select(self, request: InspectFilter) -> None:
        raise RuntimeError("a bug")


@pytest.fixture
def handler() -> Iterator[HandlerWithRun]:
    handler = HandlerWithRun()
    yield handler
    handler.run.recorder.detach()


def test_a_plan_changes_nothing_and_an_edit_does(handler: HandlerWithRun) -> None:
    conv = handler.run.model[0]
    assert isinstance(handler.handle(AddFilters("0", 2), dry_run=True), Planned)
    assert (conv.out_channels, handler.run.status.version) == (4, 0)
    reply = handler.handle(AddFilters("0", 2), version=0)
    assert isinstance(reply, Applied)
    assert (reply.version, reply.step) == (1, 1)
    assert (conv.out_channels, handler.run.recorder.widths) == (6, [6, 3])
    assert handler.resets == 1  # the inspected filters may have other indices now


def test_a_dry_run_of_a_command_changes_nothing(handler: HandlerWithRun) -> None:
    """It was carried out."""
    reply = handler.handle(SetHyperparameter(0, 0, "lr", 0.25), dry_run=True)
    assert isinstance(reply, Refused)
    assert "without dry_run" in reply.reason
    assert handler.run.optimizer.param_groups[0]["lr"] != 0.25
    assert isinstance(handler.handle(ControlRun("pause"), dry_run=True), Refused)
    assert not handler.handler._controller.must_wait()


def test_a_request_for_an_older_structure_is_refused(handler: HandlerWithRun) -> None:
    handler.handle(AddFilters("0", 1))
    for body in (RemoveFilters("0", [4]), InspectFilter("0", 4)):
        reply = handler.handle(body, version=0)
        assert isinstance(reply, Refused)
        assert "the current one is 1" in reply.reason
    assert handler.run.model[0].out_channels == 5


def test_an_internal_error_fails_the_request_alone(handler: HandlerWithRun) -> None:
    reply = handler.handle(InspectFilter("0", 1))
    assert isinstance(reply, Refused)
    assert "internal error (RuntimeError: a bug)" in reply.reason
    assert isinstance(handler.handle(AddFilters("0", 1)), Applied)


def test_a_training_that_cannot_be_edited_executes_commands(handler: HandlerWithRun) -> None:
    handler.batch = TrainingBatch(edit_refusal="there are two processes")
    reply = handler.handle(AddFilters("0", 1))
    assert (type(reply), reply.reason) == (Refused, "there are two processes")
    assert isinstance(handler.handle(SetHyperparameter(0, 0, "lr", 0.25)), Done)
    assert handler.run.optimizer.param_groups[0]["lr"] == 0.25
    # Published without waiting for the next heartbeat.
    assert handler.run.published[-1].parameter_groups[0].learning_rate == 0.25


def test_requests_that_run_no_forward_need_no_batch(handler: HandlerWithRun) -> None:
    def needs_no_batch(body: Edit | Command, *, dry_run: bool = False) -> bool:
        return handler.handler.needs_no_batch(Request("r", body, dry_run=dry_run))

    assert not needs_no_batch(AddFilters("0", 1), dry_run=True)  # the network is not traced yet
    assert isinstance(handler.handle(AddFilters("0", 1), dry_run=True), Planned)
    assert needs_no_batch(AddFilters("0", 1), dry_run=True)
    assert not needs_no_batch(AddFilters("0", 1))
    assert needs_no_batch(ControlRun("pause"))
    assert not needs_no_batch(ControlRun("checkpoint"))
    assert not needs_no_batch(ControlRun("stop"))
    handler.batch = TrainingBatch(make_probe=make_probe_without_forwards)
    assert isinstance(handler.handle(RemoveFilters("0", [1]), dry_run=True), Planned)
