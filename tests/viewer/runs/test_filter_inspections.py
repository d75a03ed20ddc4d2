from __future__ import annotations

import time

import pytest

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.inspections import FilterInspection
from revacnn_lightning.protocol.messages import Refused
from revacnn_lightning.protocol.requests import InspectFilter, RemoveFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_inspection import fake_inspection
from viewer.runs.filter_inspections import FilterInspectionFetcher


class World:
    """A follower, its filter inspections, and a clock that only `tick` advances."""

    def __init__(self, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> None:
        self.follower = follower
        self.inspections = FilterInspectionFetcher()
        self.sent: list[tuple[InspectFilter, int]] = []
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def record(self, request: InspectFilter, version: int) -> str:
        self.sent.append((request, version))
        return f"i{len(self.sent)}"

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.inspections.tick(self.follower.state, self.record)

    def deliver(self, message: object) -> None:
        assert self.follower.state is not None
        self.inspections.receive(message, self.follower.state)  # type: ignore[arg-type]

    def inspection(self, index: int = 3, **changes: object) -> FilterInspection:
        training = self.follower.training
        return fake_inspection(
            training.run, training.version, training.step, "conv2", index, **changes
        )


@pytest.fixture
def world(follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(follower, monkeypatch)


def id_of(world: World, index: int) -> int:
    return world.follower.training.ids[1][index]


def test_hidden_filters_are_not_requested(world: World) -> None:
    for _ in range(10):
        world.tick(1)

    assert world.sent == []


def test_visible_filter_is_requested_every_two_seconds(world: World) -> None:
    for _ in range(80):
        world.inspections.request_newest("conv2", id_of(world, 3), None)
        world.tick(0.1)
    assert {request for request, _ in world.sent} == {InspectFilter("conv2", 3, ascent=1)}
    assert 3 <= len(world.sent) <= 5
    for _ in range(100):
        world.tick(0.1)
    assert len(world.sent) <= 7


def test_another_image_is_requested_immediately(world: World) -> None:
    for image in (None, None, 2):
        world.inspections.request_newest("conv2", id_of(world, 3), image)
        world.tick(0.1)

    assert [request.image_index for request, _ in world.sent] == [None, 2]


def test_the_search_of_an_image_starts_again_immediately(world: World) -> None:
    filter_id = id_of(world, 3)
    world.inspections.request_newest("conv2", filter_id, None)
    world.tick()
    world.inspections.restart_activation_maximization("conv2", filter_id)
    world.inspections.restart_activation_maximization("conv2", filter_id + 1)  # which no tab shows
    world.tick(0.1)
    assert [request.ascent for request, _ in world.sent] == [1, 2]


def test_after_an_edit_the_new_index_is_requested_immediately(world: World) -> None:
    filter_id = id_of(world, 3)
    world.inspections.request_newest("conv2", filter_id, None)
    world.tick()
    outdated = world.inspection()
    world.follower.request(RemoveFilters("conv2", [0]), "", 0)
    world.follower.deliver()
    world.deliver(outdated)
    world.deliver(Refused("i1", "the network has changed since", 1))
    world.tick(0.1)

    assert world.sent == [
        (InspectFilter("conv2", 3, ascent=1), 0),
        (InspectFilter("conv2", 2, ascent=1), 1),
    ]
    state = world.inspections.request_newest("conv2", filter_id, None)
    assert state.inspection is None
    assert state.refused == ""
    world.deliver(world.inspection(2))
    assert world.inspections.request_newest("conv2", filter_id, None).inspection is not None


def test_removed_filter_is_dropped(world: World) -> None:
    world.inspections.request_newest("conv2", id_of(world, 3), None)
    world.tick()
    world.follower.request(RemoveFilters("conv2", [3]), "", 0)
    world.follower.deliver()
    world.tick(0.1)

    assert world.inspections._filters == {}
    assert len(world.sent) == 1


def test_inspections_of_hidden_filters_are_ignored(world: World) -> None:
    world.deliver(world.inspection(1))
    world.deliver(world.inspection(99))

    assert world.inspections._filters == {}


def test_refusal_is_kept_until_the_next_inspection(world: World) -> None:
    filter_id = id_of(world, 3)
    world.inspections.request_newest("conv2", filter_id, None)
    world.tick()
    world.deliver(Refused("i1", "there is no validation image 9", 0))
    assert "image 9" in world.inspections.request_newest("conv2", filter_id, None).refused
    world.deliver(world.inspection())
    assert world.inspections.request_newest("conv2", filter_id, None).refused == ""


def test_missing_training_is_reported(world: World) -> None:
    def fail(request: InspectFilter, version: int) -> str:
        raise ProtocolError("no training is attached")

    state = world.inspections.request_newest("conv2", id_of(world, 3), None)
    world.inspections.tick(world.follower.state, fail)
    assert state.refused == "no training is attached"
