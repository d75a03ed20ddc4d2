"""A hub whose training sits in the same process and answers at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.requests import ControlRun, Edit
from tests.viewer.fake_training import FakeTraining
from viewer.glyphs import PageLink
from viewer.runs.run_follower import RunFollower, RunHealth
from viewer.runs.run_state import RunState
from viewer.tab.tab_state import TabState


class DirectHub(RunFollower):
    """Follows a made-up training without sockets; replies wait until `deliver`."""

    def __init__(self, training: FakeTraining) -> None:
        super().__init__()
        self.training = training
        self.state = RunState(Connection(training.run, "", "", ""))
        self.kind = "training"
        self.requests: list[Request] = []
        self._replies: list[object] = []
        self._count = 0

    def attach(self) -> None:
        for message in self.training.answer(Request("hello", ControlRun("send_state"))):
            self.state.take(message)  # type: ignore[union-attr]

    def train(self, batches: int = 1) -> None:
        for _ in range(batches):
            self.training.step += 1
            self.state.take(self.training.snapshot())  # type: ignore[union-attr]

    def deliver(self) -> None:
        """Let the replies arrive, as they would between two batches."""
        replies, self._replies = self._replies, []
        for reply in replies:
            self.state.take(reply)  # type: ignore[union-attr]

    def request(self, edit: Edit, title: str, version: int | None) -> str:
        request_id = self._ask(edit, version, dry_run=False)
        self.state.sent(request_id, title)  # type: ignore[union-attr]
        return request_id

    def preview(self, edit: Edit, version: int | None) -> str:
        return self._ask(edit, version, dry_run=True)

    def health(self) -> RunHealth:
        return RunHealth(self.kind, self.kind)

    def _ask(self, edit: Edit, version: int | None, dry_run: bool) -> str:
        self._count += 1
        request = Request(f"r{self._count}", edit, version, dry_run)
        self.requests.append(request)
        self._replies += self.training.answer(request)
        return request.id


@pytest.fixture
def make_hub() -> Callable[..., DirectHub]:
    def make(net: str = "digits", batches: int = 3) -> DirectHub:
        hub = DirectHub(FakeTraining(net))
        hub.attach()
        hub.train(batches)
        return hub

    return make


@pytest.fixture
def hub(make_hub: Callable[..., DirectHub]) -> DirectHub:
    return make_hub()


@pytest.fixture
def tab(hub: DirectHub) -> TabState:
    tab = TabState(hub, PageLink())
    tab.update()
    return tab
