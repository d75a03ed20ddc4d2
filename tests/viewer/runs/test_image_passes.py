from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import ImagePass
from revacnn_lightning.protocol.messages import Refused
from revacnn_lightning.protocol.requests import InspectImage
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_pass import fake_pass
from viewer.runs.image_passes import ImagePassFetcher


class World:
    """A follower, its passes, and a clock that only `tick` advances."""

    def __init__(self, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> None:
        self.follower = follower
        self.passes = ImagePassFetcher()
        self.sent: list[InspectImage] = []
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def record(self, request: InspectImage) -> str:
        self.sent.append(request)
        return f"p{len(self.sent)}"

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.passes.tick(self.follower.state, self.record)

    def deliver(self, message: object) -> None:
        assert self.follower.state is not None
        self.passes.receive(message, self.follower.state)  # type: ignore[arg-type]

    def sent_pass(self, **changes: object) -> ImagePass:
        training = self.follower.training
        layers = [("conv1", 8), ("conv2", 16)]
        sent = fake_pass(training.run, training.version, training.step, layers)
        return replace(sent, **changes)


@pytest.fixture
def world(follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(follower, monkeypatch)


def test_nothing_is_requested_while_no_tab_shows_the_network(world: World) -> None:
    for _ in range(10):
        world.tick(1)
    assert world.sent == []


def test_passes_are_requested_again_and_again_and_a_chosen_image_immediately(world: World) -> None:
    world.passes.request_newest(None)
    world.tick()
    world.tick(1)
    world.passes.request_newest(4)
    world.tick(0.1)
    assert [request.image_index for request in world.sent] == [None, 4]
    assert not world.passes.is_waiting  # nothing is shown yet
    world.deliver(world.sent_pass())
    assert world.passes.is_waiting
    world.deliver(world.sent_pass(image_index=4))
    assert not world.passes.is_waiting
    world.tick(10)  # the tab is closed
    assert len(world.sent) == 2


def test_the_modules_are_kept_and_requested_once_per_structure(world: World) -> None:
    world.passes.request_newest(None)
    world.tick()
    world.deliver(world.sent_pass())
    known = world.passes.modules
    assert known
    world.deliver(world.sent_pass(modules=None))
    assert world.passes.modules is known
    world.passes.request_newest(None)
    world.tick(2.5)
    assert [request.known_modules for request in world.sent] == [-1, 0]


def test_a_pass_of_another_run_or_structure_is_ignored(world: World) -> None:
    world.deliver(world.sent_pass(version=5))
    world.deliver(world.sent_pass(run="other"))
    assert world.passes.newest is None


def test_a_refusal_is_shown_until_the_next_pass(world: World) -> None:
    world.passes.request_newest(None)
    world.tick()
    world.deliver(Refused("p1", "an old training"))
    assert world.passes.refused == "an old training"
    world.deliver(world.sent_pass())
    assert world.passes.refused == ""
