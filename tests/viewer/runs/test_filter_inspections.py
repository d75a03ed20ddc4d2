from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.messages import FilterInspection, Refused
from revacnn_lightning.protocol.requests import InspectFilter, RemoveFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_inspection import FIELD, inspection
from viewer.components.filter_inspection import NO_FINDS, OVER, WAITING, FilterInspectionPane
from viewer.rendering.thumbnails import attribution_tile
from viewer.runs import filter_inspections as inspected
from viewer.runs.filter_inspections import FilterInspections
from viewer.tab.tab_state import Selection, TabState


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


# The part of the page


@pytest.fixture
def looks(tab: TabState) -> FilterInspectionPane:
    tab.selection = Selection("conv2", tab.structure.layers[1].filter_ids[3])  # type: ignore[union-attr]
    return FilterInspectionPane(tab)


def arrive(looks: FilterInspectionPane, **changes: object) -> None:
    follower = looks.tab.follower
    training = follower.training  # type: ignore[attr-defined]
    step = changes.pop("step", training.step)
    sent = inspection(training.run, training.version, step, "conv2", 3, **changes)
    follower.inspections.receive(sent, follower.state)  # type: ignore[arg-type]


def test_it_costs_nothing_unless_its_pane_is_open(looks: FilterInspectionPane) -> None:
    assert not looks.update()
    assert looks.tab.follower.inspections._filters == {}
    assert looks.source.data == {}


def test_nothing_more_is_awaited_of_a_run_that_has_ended(
    looks: FilterInspectionPane, follower: InProcessFollower
) -> None:
    looks.tab.pane = "looks"
    looks.update()
    assert looks.source.data == {"status": WAITING, "busy": True}
    follower.kind = "failed"
    assert looks.update()
    assert looks.source.data == {"status": OVER, "busy": False}


def test_it_waits_and_then_shows_what_the_filter_looks_for(looks: FilterInspectionPane) -> None:
    looks.tab.pane = "looks"
    assert looks.update()
    assert looks.source.data["status"] == WAITING
    assert not looks.update()
    arrive(looks, step=20)
    assert looks.update()
    assert not looks.update()
    data = looks.source.data
    assert len(data["finds"]) == 9
    assert data["finds"][0]["pixels"].shape == (1, FIELD, FIELD, 3)
    assert data["finds"][0]["age"] == "this batch"
    assert data["finds"][1]["age"] == "7 batches ago"
    assert [find["response"] for find in data["finds"][:2]] == ["5.00", "4.60"]
    assert data["facts"] == f"cut to the {FIELD}×{FIELD} pixels it sees"
    assert data["part"].shape == (1, FIELD, FIELD, 3)
    assert data["guided"].shape == (1, FIELD, FIELD, 3)
    assert (data["title"], data["response"]) == ("first of the batch", "3.25")
    arrive(looks, step=21)
    assert looks.update()


def test_it_follows_the_selection_and_the_chosen_image(looks: FilterInspectionPane) -> None:
    tab = looks.tab
    tab.pane = "looks"
    looks.update()
    arrive(looks)
    looks.update()
    tab.follower.layer_details.mark_visible("conv2", "tsne")
    tab.follower.layer_details.select_image("conv2", 4)
    assert looks.update()
    assert looks.source.data["busy"]  # of the image before
    arrive(looks, image=4)
    looks.update()
    assert not looks.source.data["busy"]
    assert looks.source.data["title"] == "validation image 4"
    tab.select(1, 5)
    assert looks.update()
    assert "finds" not in looks.source.data


def test_what_cannot_be_told_is_said_and_the_images_are_shown_all_the_same(
    looks: FilterInspectionPane,
) -> None:
    looks.tab.pane = "looks"
    looks.update()
    nothing = np.zeros(0, np.float16)
    arrive(
        looks,
        attribution_refusal="no captum",
        deconvolution=nothing,
        guided_backpropagation=nothing,
        receptive_field=(0, 0),
    )
    looks.update()
    data = looks.source.data
    assert data["refused"] == "no captum"
    assert len(data["deconvolution"]) == len(data["guided"]) == 0
    assert data["facts"] == "whole: not cut"
    assert len(data["finds"]) == 9


def test_no_images_and_no_response_are_no_fault(looks: FilterInspectionPane) -> None:
    looks.tab.pane = "looks"
    looks.update()
    nothing = np.zeros(0, np.float16)
    arrive(
        looks,
        top_images=[],
        image=None,
        response=None,
        attribution_refusal="no images",
        box=(0, 0, 0, 0),
    )
    looks.update()
    assert looks.source.data["no_finds"] == NO_FINDS
    assert len(looks.source.data["part"]) == 0
    arrive(
        looks, step=9, response=float("nan"), deconvolution=nothing, guided_backpropagation=nothing
    )
    looks.update()
    assert looks.source.data["response"] == "–"


@pytest.mark.parametrize(("channels", "shape"), [(1, (1, 4, 5)), (3, (1, 4, 5, 3)), (6, (1, 4, 5))])
def test_what_pixels_contribute_is_spread_around_the_middle(
    channels: int, shape: tuple[int, ...]
) -> None:
    values = np.zeros((channels, 4, 5), np.float16)
    values[:, 1, 2], values[:, 0, 0] = -2.0, 1.0
    levels = attribution_tile(values)
    assert levels.shape == shape
    assert levels.reshape(4, 5, -1)[1, 2, 0] == 1
    assert levels.reshape(4, 5, -1)[3, 3, 0] == 128
    assert (attribution_tile(0 * values) == 128).all()
    assert len(attribution_tile(np.zeros(0))) == 0
