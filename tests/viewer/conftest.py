"""Fixtures: a follower of a fake training in the same process, and a tab that shows it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from revacnn_lightning.protocol.access_messages import Access
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.requests import (
    ControlRun,
    Edit,
    RequestBody,
    SendHistory,
)
from tests.viewer.fake_training import FakeTraining, train_without_viewer
from viewer.runs.run_follower import RunFollower
from viewer.runs.run_health import RunStatus
from viewer.runs.run_state import RunState
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState


class InProcessFollower(RunFollower):
    """Follows a fake training without sockets. Replies are received on `deliver`."""

    access: Access | None = None

    def __init__(self, training: FakeTraining) -> None:
        super().__init__()
        self.training = training
        self.state = RunState(Connection(training.run, "", "", ""))
        self.kind = "training"
        self.requests: list[Request] = []
        self._replies: list[object] = []
        self._n_requests = 0

    def attach(self) -> None:
        for message in self.training.handle(Request("hello", ControlRun("send_state"))):
            self.state.receive(message)  # type: ignore[union-attr]

    def receive_history(self) -> None:
        for message in self.training.handle(Request("history", SendHistory())):
            self.state.receive(message)  # type: ignore[union-attr]

    def train(self, batches: int = 1) -> None:
        for _ in range(batches):
            self.training.step += 1
            self.state.receive(self.training.snapshot())  # type: ignore[union-attr]

    def deliver(self) -> None:
        """Receive the pending replies, as between two batches."""
        replies, self._replies = self._replies, []
        for reply in replies:
            self.state.receive(reply)  # type: ignore[union-attr]

    def request(self, edit: Edit, title: str, version: int | None) -> str:
        request_id = self._send_request(edit, version, dry_run=False)
        self.state.requests.add(request_id, title)  # type: ignore[union-attr]
        return request_id

    def preview(self, body: RequestBody, version: int | None) -> str:
        return self._send_request(body, version, dry_run=True)

    def _send(self, body: RequestBody, version: int | None, *, dry_run: bool = False) -> str:
        return self._send_request(body, version, dry_run)

    def run_status(self) -> RunStatus:
        return RunStatus(self.kind, self.kind)

    def _send_request(self, edit: RequestBody, version: int | None, dry_run: bool) -> str:
        self._n_requests += 1
        request = Request(f"r{self._n_requests}", edit, version, dry_run)
        self.requests.append(request)
        self._replies += self.training.handle(request)
        return request.id


@pytest.fixture
def make_follower() -> Callable[..., InProcessFollower]:
    def make(net: str = "digits", batches: int = 3) -> InProcessFollower:
        follower = InProcessFollower(FakeTraining(net))
        follower.attach()
        follower.train(batches)
        return follower

    return make


@pytest.fixture
def late_follower() -> InProcessFollower:
    """A follower that attaches after 1000 batches with one edit, and then receives 5."""
    training = FakeTraining("digits")
    train_without_viewer(training, 1000)
    follower = InProcessFollower(training)
    follower.attach()
    follower.train(5)
    follower.receive_history()
    return follower


@pytest.fixture
def follower(make_follower: Callable[..., InProcessFollower]) -> InProcessFollower:
    return make_follower()


@pytest.fixture
def tab(follower: InProcessFollower) -> TabState:
    tab = TabState(follower, PageLink())
    tab.update()
    return tab
