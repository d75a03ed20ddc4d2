from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.messages import LayerDetail, Refused
from revacnn_lightning.protocol.requests import InspectLayer, RemoveFilters
from tests.viewer.conftest import InProcessFollower
from viewer.embedding.projection import Projection, ProjectionJob, project, relative_change
from viewer.embedding.worker import ProjectionFailure
from viewer.runs import layer_projections
from viewer.runs.layer_details import VIEWS, LayerDetails


class Immediate:
    """A worker that computes when it is polled; it never starts a process."""

    def __init__(self) -> None:
        self.jobs: dict[Hashable, ProjectionJob] = {}
        self.fail = False
        self.closed = False
        self.done: list[Hashable] = []
        self.submitted: list[tuple[Any, ProjectionJob]] = []

    def submit(self, key: Hashable, job: ProjectionJob) -> None:
        self.submitted.append((key, job))
        self.jobs[key] = job

    def is_busy(self, key: Hashable) -> bool:
        return key in self.jobs

    def cancel(self, key: Hashable) -> None:
        self.jobs.pop(key, None)

    def poll(self) -> list[tuple[Hashable, Projection | ProjectionFailure]]:
        jobs, self.jobs = self.jobs, {}
        self.done += jobs
        return [
            (k, ProjectionFailure("too long") if self.fail else project(j)) for k, j in jobs.items()
        ]

    def close(self) -> None:
        self.closed = True


class World:
    """A follower, what is opened of it, and a clock that stands still until it is moved."""

    def __init__(self, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> None:
        self.follower = follower
        self.worker = Immediate()
        self.layers = LayerDetails(lambda: self.worker)  # type: ignore[arg-type, return-value]
        self.asked: list[InspectLayer] = []
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def ask(self, watch: InspectLayer) -> str:
        self.asked.append(watch)
        return f"w{len(self.asked)}"

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.layers.tick(self.follower.state, self.ask)

    def detail(self, layer: str = "conv2", image: int | None = None) -> LayerDetail:
        training = self.follower.training
        at = [conv.name for conv in training.convs].index(layer)
        return training.details.detail(
            training.run, training.version, training.step, layer, training.ids[at], 3,
            at == 0, training.dead, image,
        )  # fmt: skip

    def send(self, detail: Any) -> None:
        assert self.follower.state is not None
        self.layers.receive(detail, self.follower.state)


@pytest.fixture
def world(follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(follower, monkeypatch)


def test_nothing_is_asked_for_while_nothing_is_shown(world: World) -> None:
    for _ in range(10):
        world.tick(1)

    assert world.asked == []


def test_a_shown_layer_is_asked_for_every_two_seconds(world: World) -> None:
    for _ in range(80):
        world.layers.mark_visible("conv2", "tsne")
        world.tick(0.1)

    assert {watch.layer for watch in world.asked} == {"conv2"}
    assert 3 <= len(world.asked) <= 5


def test_asking_ends_when_nobody_shows_the_layer_any_more(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    for _ in range(100):
        world.tick(0.1)

    assert len(world.asked) <= 2


def test_all_views_are_laid_out_once_per_detail(world: World) -> None:
    for _ in range(3):  # three tabs
        world.layers.mark_visible("conv2", "tsne")
    world.send(world.detail())
    world.tick()
    world.tick()

    assert sorted(str(key[1]) for key in world.worker.done) == sorted(VIEWS)  # type: ignore[index]
    for view in VIEWS:
        layout = world.layers.projections.get("conv2", view, "tsne")
        assert layout is not None
        assert len(layout.ids) == 16


def test_only_methods_that_are_shown_are_computed(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    world.layers.mark_visible("conv2", "pca")
    world.send(world.detail())
    world.tick(0.1)
    world.now += 10
    world.layers.mark_visible("conv2", "pca")
    world.worker.done.clear()
    world.send(world.detail())
    world.tick(0.1)

    assert {key[2] for key in world.worker.done} == {"pca"}  # type: ignore[index]


def test_the_next_layout_begins_from_the_last(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    world.send(world.detail())
    world.tick()
    first = world.layers.projections.get("conv2", "coefficients", "tsne")
    world.send(world.detail())
    world.layers._submit("conv2", world.layers._layers["conv2"], world.now)

    job = world.worker.jobs["conv2", "coefficients", "tsne"]

    assert job.last is first
    assert job.change < 0.2
    assert not job.from_scratch


def test_laid_out_anew_on_demand(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    world.send(world.detail())
    world.tick()
    world.layers.projections.recompute("conv2", "tsne")
    world.layers._submit("conv2", world.layers._layers["conv2"], world.now)

    assert all(job.from_scratch for job in world.worker.jobs.values())
    assert len(world.worker.jobs) == 4


def test_each_layout_anew_begins_from_elsewhere(world: World) -> None:
    """Of a layer that had not changed, a person saw the same picture again."""
    world.layers.mark_visible("conv2", "tsne")
    world.send(world.detail())
    world.tick()
    seeds = []
    for _ in range(2):
        world.layers.projections.recompute("conv2", "tsne")
        world.layers._submit("conv2", world.layers._layers["conv2"], world.now)
        seeds.append(world.worker.jobs["conv2", "coefficients", "tsne"].seed)
        world.tick()
    assert seeds == [1, 2]


def test_another_image_is_asked_for_at_once(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    world.tick()
    world.layers.select_image("conv2", 3)
    world.tick(0.01)

    assert [watch.image_index for watch in world.asked] == [None, 3]


def test_a_layer_removed_while_it_is_open_is_forgotten(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    world.send(world.detail())
    world.tick()
    structure = world.follower.state.structure  # type: ignore[union-attr]
    assert structure is not None
    layers = [layer for layer in structure.layers if layer.name != "conv2"]
    world.follower.state.receive(replace(structure, layers=layers, version=structure.version + 1))  # type: ignore[union-attr]
    late = world.detail()
    world.tick()
    world.send(late)  # was on its way
    world.tick()

    assert world.layers.projections.get("conv2", "coefficients", "tsne") is None
    assert world.layers._layers == {}


def test_details_of_an_older_network_are_not_taken(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    old = world.detail()
    world.follower.request(RemoveFilters("conv2", [0, 1]), "", 0)
    world.follower.deliver()
    world.send(old)

    assert world.layers.mark_visible("conv2", "tsne").detail is None


@pytest.mark.parametrize("rows", [0, 3, 17])
def test_details_with_too_few_or_too_many_rows_are_not_taken(world: World, rows: int) -> None:
    world.layers.mark_visible("conv2", "tsne")
    detail = world.detail()
    view = replace(detail.gradients, features=np.zeros((rows, 64), np.float16))
    world.send(replace(detail, gradients=view))

    taken = world.layers.mark_visible("conv2", "tsne").detail is not None
    assert taken == (rows == 0)


def test_why_the_training_sends_nothing_is_told(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    world.tick()
    world.send(Refused("w1", "conv2 runs inside a compiled region", 0))

    assert "compiled" in world.layers.mark_visible("conv2", "tsne").refused


def test_the_chosen_slices_are_asked_for_at_once_and_by_all_tabs(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    world.layers.select_kernel_slice("conv2", "mean")
    world.layers.select_kernel_slice("elsewhere", "mean")  # nobody has it open
    world.tick(0.01)
    world.tick(0.1)
    world.tick(2.5)

    assert [watch.kernel_slice for watch in world.asked] == ["mean", "mean"]
    assert world.layers.mark_visible("conv2", "pca").kernel_slice == "mean"


def test_near_duplicates_are_sought_among_the_coefficients_only(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    detail = world.detail()
    features = detail.coefficients.features.copy()
    features[[4, 9, 11]] = features[2] * 0.5
    view = replace(detail.coefficients, features=features)
    world.send(replace(detail, coefficients=view, gradients=view))
    world.tick()

    alike = {
        name: world.layers.projections.get("conv2", name, "tsne").duplicate_group for name in VIEWS
    }  # type: ignore[union-attr]
    assert set(np.flatnonzero(alike["coefficients"] == 0)) == {2, 4, 9, 11}
    assert (alike["gradients"] == -1).all()


def test_a_failed_layout_leaves_the_last_one_in_sight_and_is_told(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    world.send(world.detail())
    world.tick()
    before = world.layers.projections.get("conv2", "coefficients", "tsne")
    world.worker.fail = True
    world.send(world.detail())
    world.tick(0.1)

    assert world.layers.projections.get("conv2", "coefficients", "tsne") is before
    assert world.layers.projections.failure("conv2", "coefficients", "tsne") == "too long"

    world.worker.fail = False
    world.now += layer_projections.RETRY_SECONDS
    world.layers.mark_visible("conv2", "tsne")
    world.layers._submit("conv2", world.layers._layers["conv2"], world.now)
    assert all(job.from_scratch for job in world.worker.jobs.values())
    world.tick()
    assert world.layers.projections.get("conv2", "coefficients", "tsne") is not before
    assert world.layers.projections.failure("conv2", "coefficients", "tsne") == ""


def test_a_failed_layout_is_tried_again_later_and_from_nothing(world: World) -> None:
    world.worker.fail = True
    world.layers.mark_visible("conv2", "tsne")
    world.send(world.detail())
    world.tick()
    assert world.layers.projections.get("conv2", "coefficients", "tsne") is None
    world.worker.fail = False
    world.worker.done.clear()
    world.send(world.detail())
    world.tick(1)
    assert world.worker.done == []

    world.now += layer_projections.RETRY_SECONDS
    world.layers.mark_visible("conv2", "tsne")
    world.tick()

    assert world.layers.projections.get("conv2", "coefficients", "tsne") is not None


def test_closing_ends_the_worker(world: World) -> None:
    world.layers.start()
    world.layers.close()

    assert world.worker.closed


def test_the_views_of_fleeting_things_do_not_rearrange_themselves_with_every_batch(
    world: World,
) -> None:
    """Gradients of another batch are others: their layout jumped at every refresh."""
    details = [replace(world.detail(), step=step) for step in range(40)]
    for detail in details:
        world.layers.mark_visible("conv2", "tsne")
        world.send(detail)
        world.tick(0.1)

    jobs = [job for (_, view, _), job in world.worker.submitted if view == "gradients"]
    before, now = (detail.gradients.features for detail in details[-2:])
    assert jobs[-1].change < 0.4 * relative_change(before, now)


def test_maps_of_a_chosen_image_are_compared_as_they_are(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    known = world.layers.get("conv2")
    assert known is not None
    for image in (None, None, 1, 1):
        detail = world.detail(image=image)
        world.send(detail)
        raw = np.array_equal(known.features["activations"], detail.activations.features)
        assert raw == (image is not None)


def test_details_of_a_paused_run_are_not_averaged_again_and_again(world: World) -> None:
    world.layers.mark_visible("conv2", "tsne")
    known = world.layers.get("conv2")
    assert known is not None
    first, second = (replace(world.detail(), step=step) for step in (1, 2))
    world.send(first)
    world.send(second)
    before = known.features["gradients"].copy()
    world.send(replace(second, kernel_slice="mean"))

    assert np.array_equal(known.features["gradients"], before)
    assert known.detail is not None
    assert known.detail.kernel_slice == "mean"
