from __future__ import annotations

import pytest

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import FilterInspection, Refused
from revacnn_lightning.protocol.requests import InspectFilter, RemoveFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_inspection import inspection
from viewer.runs import filter_inspections as inspected
from viewer.runs.filter_inspections import FilterInspections


class World:
    """A follower, what is inspected of it, and a clock that stands still until it is moved."""

    def __init__(self, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> None:
        self.follower = follower
        self.filters = FilterInspections()
        self.asked: list[tuple[InspectFilter, int]] = []
        self.now = 1000.0
        monkeypatch.setattr(inspected.time, "monotonic", lambda: self.now)

    def ask(self, request: InspectFilter, version: int) -> str:
        self.asked.append((request, version))
        return f"i{len(self.asked)}"

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.filters.tick(self.follower.state, self.ask)

    def send(self, message: object) -> None:
        assert self.follower.state is not None
        self.filters.receive(message, self.follower.state)  # type: ignore[arg-type]

    def inspection(self, index: int = 3, **changes: object) -> FilterInspection:
        training = self.follower.training
        return inspection(training.run, training.version, training.step, "conv2", index, **changes)


@pytest.fixture
def world(follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(follower, monkeypatch)


def id_of(world: World, index: int) -> int:
    return world.follower.training.ids[1][index]


def test_nothing_is_asked_for_while_nothing_is_shown(world: World) -> None:
    for _ in range(10):
        world.tick(1)

    assert world.asked == []


def test_a_shown_filter_is_asked_for_every_two_seconds_and_no_longer(world: World) -> None:
    for _ in range(80):
        world.filters.mark_visible("conv2", id_of(world, 3), None)
        world.tick(0.1)
    assert {request for request, _ in world.asked} == {InspectFilter("conv2", 3)}
    assert 3 <= len(world.asked) <= 5
    for _ in range(100):
        world.tick(0.1)
    assert len(world.asked) <= 7


def test_another_image_is_asked_for_at_once(world: World) -> None:
    for image in (None, None, 2):
        world.filters.mark_visible("conv2", id_of(world, 3), image)
        world.tick(0.1)

    assert [request.image_index for request, _ in world.asked] == [None, 2]


def test_after_an_edit_it_is_asked_for_by_its_new_index_at_once(world: World) -> None:
    name = id_of(world, 3)
    world.filters.mark_visible("conv2", name, None)
    world.tick()
    old = world.inspection()
    world.follower.request(RemoveFilters("conv2", [0]), "", 0)
    world.follower.deliver()
    world.send(old)  # was on its way
    world.send(Refused("i1", "the network has changed since", 1))
    world.tick(0.1)

    assert world.asked == [(InspectFilter("conv2", 3), 0), (InspectFilter("conv2", 2), 1)]
    known = world.filters.mark_visible("conv2", name, None)
    assert known.inspection is None
    assert known.refused == ""
    world.send(world.inspection(2))
    assert world.filters.mark_visible("conv2", name, None).inspection is not None


def test_a_filter_that_is_removed_is_forgotten(world: World) -> None:
    world.filters.mark_visible("conv2", id_of(world, 3), None)
    world.tick()
    world.follower.request(RemoveFilters("conv2", [3]), "", 0)
    world.follower.deliver()
    world.tick(0.1)

    assert world.filters._filters == {}
    assert len(world.asked) == 1


def test_inspections_of_filters_that_nobody_shows_are_not_kept(world: World) -> None:
    world.send(world.inspection(1))
    world.send(world.inspection(99))

    assert world.filters._filters == {}


def test_why_the_training_sends_nothing_is_told(world: World) -> None:
    name = id_of(world, 3)
    world.filters.mark_visible("conv2", name, None)
    world.tick()
    world.send(Refused("i1", "there is no validation image 9", 0))
    assert "image 9" in world.filters.mark_visible("conv2", name, None).refused
    world.send(world.inspection())
    assert world.filters.mark_visible("conv2", name, None).refused == ""


def test_without_a_training_to_ask_it_says_so(world: World) -> None:
    def ask(request: InspectFilter, version: int) -> str:
        raise ProtocolError("no training is attached")

    known = world.filters.mark_visible("conv2", id_of(world, 3), None)
    world.filters.tick(world.follower.state, ask)
    assert known.refused == "no training is attached"
