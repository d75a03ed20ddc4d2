from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages, LayerDetail
from revacnn_lightning.protocol.messages import Refused
from revacnn_lightning.protocol.requests import InspectLayer, RemoveFilters
from tests.viewer.conftest import InProcessFollower
from viewer.embedding.projection import Projection, ProjectionJob, mean_direction_change, project
from viewer.embedding.worker import ProjectionFailure
from viewer.runs import layer_projections
from viewer.runs.layer_details import VIEWS, LayerDetailFetcher

LONG = 40.0  # seconds, after which small changes are worth a layout, too


class SynchronousWorker:
    """Computes jobs when it is polled, in this process."""

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
    """A follower, its layer details, and a clock that only `tick` advances."""

    def __init__(self, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> None:
        self.follower = follower
        self.worker = SynchronousWorker()
        self.layers = LayerDetailFetcher(lambda: self.worker)  # type: ignore[arg-type, return-value]
        self.sent: list[InspectLayer] = []
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def record(self, request: InspectLayer) -> str:
        self.sent.append(request)
        return f"w{len(self.sent)}"

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.layers.tick(self.follower.state, self.record)

    def detail(self, layer: str = "conv2", image: int | None = None) -> LayerDetail:
        training = self.follower.training
        at = [conv.name for conv in training.convs].index(layer)
        return training.details.detail(
            training.run, training.version, training.step, layer, training.ids[at], 3,
            at == 0, training.dead, image,
        )  # fmt: skip

    def deliver(self, detail: Any) -> None:
        assert self.follower.state is not None
        self.layers.receive(detail, self.follower.state)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change is worth a layout."""
    monkeypatch.setattr(layer_projections, "SECONDS_PER_CHANGE", 0.0)


@pytest.fixture
def world(follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(follower, monkeypatch)


def test_hidden_layers_are_not_requested(world: World) -> None:
    for _ in range(10):
        world.tick(1)

    assert world.sent == []


def test_visible_layer_is_requested_every_two_seconds(world: World) -> None:
    for _ in range(80):
        world.layers.request_newest("conv2", "tsne")
        world.tick(0.1)

    assert {request.layer for request in world.sent} == {"conv2"}
    assert 3 <= len(world.sent) <= 5


def test_hidden_layer_is_no_longer_requested(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    for _ in range(100):
        world.tick(0.1)

    assert len(world.sent) <= 2


def test_all_views_are_projected_once_per_detail(world: World) -> None:
    for _ in range(3):  # three tabs
        world.layers.request_newest("conv2", "tsne")
    world.deliver(world.detail())
    world.tick()
    world.tick()

    assert sorted(str(key[1]) for key in world.worker.done) == sorted(VIEWS)  # type: ignore[index]
    for view in VIEWS:
        layout = world.layers.projections.get("conv2", view, "tsne")
        assert layout is not None
        assert len(layout.ids) == 16


@pytest.mark.usefixtures("impatient")
def test_only_visible_methods_are_computed(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.layers.request_newest("conv2", "pca")
    world.deliver(world.detail())
    world.tick(0.1)
    world.now += 10
    world.layers.request_newest("conv2", "pca")
    world.worker.done.clear()
    world.deliver(world.detail())
    world.tick(0.1)

    assert {key[2] for key in world.worker.done} == {"pca"}  # type: ignore[index]


@pytest.mark.usefixtures("impatient")
def test_next_projection_starts_from_the_last(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.deliver(world.detail())
    world.tick()
    first = world.layers.projections.get("conv2", "coefficients", "tsne")
    world.deliver(world.detail())
    world.layers._submit("conv2", world.layers._layers["conv2"], world.now)

    job = world.worker.jobs["conv2", "coefficients", "tsne"]

    assert job.last is first
    assert job.change < 0.2
    assert not job.from_scratch


def test_a_layout_was_computed_although_its_filters_hardly_changed(world: World) -> None:
    detail = replace(world.detail(), step=1)
    coefficients = detail.coefficients

    def submitted_after(seconds: float, change: float, step: int) -> bool:
        factor = 1 + change * np.random.default_rng(step).normal(size=coefficients.features.shape)
        features = (coefficients.features * factor).astype(np.float32)
        world.worker.submitted.clear()
        world.now += seconds
        world.layers.request_newest("conv2", "tsne")
        world.deliver(
            replace(detail, step=step, coefficients=replace(coefficients, features=features))
        )
        world.tick()
        return "coefficients" in [view for (_, view, _), _ in world.worker.submitted]

    assert submitted_after(0, 0.0, 2)
    assert not submitted_after(1, 0.03, 3)
    assert not submitted_after(LONG, 0.0, 4)
    assert submitted_after(LONG, 0.08, 5)
    assert not submitted_after(0.3, 10, 6)
    assert submitted_after(2.5, 10, 7)


def test_recompute_starts_from_scratch(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.deliver(world.detail())
    world.tick()
    world.layers.projections.recompute("conv2", "tsne")
    world.layers._submit("conv2", world.layers._layers["conv2"], world.now)

    assert all(job.from_scratch for job in world.worker.jobs.values())
    assert len(world.worker.jobs) == 4


def test_each_recompute_uses_another_seed(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.deliver(world.detail())
    world.tick()
    seeds = []
    for _ in range(2):
        world.layers.projections.recompute("conv2", "tsne")
        world.layers._submit("conv2", world.layers._layers["conv2"], world.now)
        seeds.append(world.worker.jobs["conv2", "coefficients", "tsne"].seed)
        world.tick()
    assert seeds == [1, 2]


def test_another_image_is_requested_immediately(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.tick()
    world.layers.show_image_if_known("conv2", 3)
    world.tick(0.01)

    assert [request.image_index for request in world.sent] == [None, 3]


def test_removed_layer_is_dropped(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.deliver(world.detail())
    world.tick()
    structure = world.follower.state.structure  # type: ignore[union-attr]
    assert structure is not None
    layers = [layer for layer in structure.layers if layer.name != "conv2"]
    world.follower.state.receive(replace(structure, layers=layers, version=structure.version + 1))  # type: ignore[union-attr]
    late = world.detail()
    world.tick()
    world.deliver(late)
    world.tick()

    assert world.layers.projections.get("conv2", "coefficients", "tsne") is None
    assert world.layers._layers == {}


def test_details_of_an_older_version_are_ignored(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    outdated = world.detail()
    world.follower.request(RemoveFilters("conv2", [0, 1]), "", 0)
    world.follower.deliver()
    world.deliver(outdated)

    assert world.layers.request_newest("conv2", "tsne").detail is None


@pytest.mark.parametrize("rows", [0, 3, 17])
def test_details_with_a_wrong_number_of_rows_are_ignored(world: World, rows: int) -> None:
    world.layers.request_newest("conv2", "tsne")
    detail = world.detail()
    view = replace(detail.gradients, features=np.zeros((rows, 64), np.float16))
    world.deliver(replace(detail, gradients=view))

    is_accepted = world.layers.request_newest("conv2", "tsne").detail is not None
    assert is_accepted == (rows == 0)


def test_refusal_is_kept(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.tick()
    world.deliver(Refused("w1", "conv2 runs inside a compiled region", 0))

    assert "compiled" in world.layers.request_newest("conv2", "tsne").refused


def test_kernel_slice_is_requested_immediately_and_shared_by_tabs(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.layers.select_kernel_slice("conv2", "mean")
    world.layers.select_kernel_slice("elsewhere", "mean")  # not visible
    world.tick(0.01)
    world.tick(0.1)
    world.tick(2.5)

    assert [request.kernel_slice for request in world.sent] == ["mean", "mean"]
    assert world.layers.request_newest("conv2", "pca").kernel_slice == "mean"


def test_single_values_of_linear_layers_are_not_arranged(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    detail = world.detail()
    count = len(detail.coefficients.features)
    single = FilterFeaturesAndImages(
        np.ones((count, 1), np.float16), np.ones((count, 1, 1), np.float16)
    )
    world.deliver(replace(detail, activations=single, activation_gradients=single))
    known = world.layers.request_newest("conv2", "tsne")

    assert {view: len(known.features[view]) for view in VIEWS} == {
        "coefficients": count, "gradients": count, "activations": 0, "activation_gradients": 0,
    }  # fmt: skip


def test_the_slice_of_volumes_is_requested_immediately(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.layers.select_depth("conv2", 0.25)
    world.layers.select_depth("elsewhere", 0.25)  # not visible
    world.tick(0.01)
    world.layers.select_depth("conv2", 1.0)
    world.tick(0.1)

    assert [request.depth for request in world.sent] == [0.25, 1.0]
    assert world.layers.request_newest("conv2", "pca").depth == 1.0


def test_near_duplicates_are_searched_in_coefficients_only(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    detail = world.detail()
    features = detail.coefficients.features.copy()
    features[[4, 9, 11]] = features[2] * 0.5
    view = replace(detail.coefficients, features=features)
    world.deliver(replace(detail, coefficients=view, gradients=view))
    world.tick()

    groups = {
        name: world.layers.projections.get("conv2", name, "tsne").duplicate_group for name in VIEWS
    }  # type: ignore[union-attr]
    assert set(np.flatnonzero(groups["coefficients"] == 0)) == {2, 4, 9, 11}
    assert (groups["gradients"] == -1).all()


@pytest.mark.usefixtures("impatient")
def test_failed_projection_keeps_the_last_and_is_reported(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    world.deliver(world.detail())
    world.tick()
    before = world.layers.projections.get("conv2", "coefficients", "tsne")
    world.worker.fail = True
    world.deliver(world.detail())
    world.tick(0.1)

    assert world.layers.projections.get("conv2", "coefficients", "tsne") is before
    assert world.layers.projections.failure("conv2", "coefficients", "tsne") == "too long"

    world.worker.fail = False
    world.now += layer_projections.RETRY_SECONDS
    world.layers.request_newest("conv2", "tsne")
    world.layers._submit("conv2", world.layers._layers["conv2"], world.now)
    assert all(job.from_scratch for job in world.worker.jobs.values())
    world.tick()
    assert world.layers.projections.get("conv2", "coefficients", "tsne") is not before
    assert world.layers.projections.failure("conv2", "coefficients", "tsne") == ""


def test_failed_projection_is_retried_later_from_scratch(world: World) -> None:
    world.worker.fail = True
    world.layers.request_newest("conv2", "tsne")
    world.deliver(world.detail())
    world.tick()
    assert world.layers.projections.get("conv2", "coefficients", "tsne") is None
    world.worker.fail = False
    world.worker.done.clear()
    world.deliver(world.detail())
    world.tick(1)
    assert world.worker.done == []

    world.now += layer_projections.RETRY_SECONDS
    world.layers.request_newest("conv2", "tsne")
    world.tick()

    assert world.layers.projections.get("conv2", "coefficients", "tsne") is not None


def test_close_stops_the_worker(world: World) -> None:
    world.layers.start()
    world.layers.close()

    assert world.worker.closed


@pytest.mark.usefixtures("impatient")
def test_batch_dependent_views_are_stable(world: World) -> None:
    """Gradients differ between batches; without averaging, their projection would jump."""
    details = [replace(world.detail(), step=step) for step in range(20)]
    for detail in details:
        world.layers.request_newest("conv2", "tsne")
        world.deliver(detail)
        world.tick(0.1)

    jobs = [job for (_, view, _), job in world.worker.submitted if view == "gradients"]
    before, now = (detail.gradients.features for detail in details[-2:])
    assert jobs[-1].change < 0.4 * mean_direction_change(before, now)


def test_maps_of_a_selected_image_are_not_averaged(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    known = world.layers.get("conv2")
    assert known is not None
    for image in (None, None, 1, 1):
        detail = world.detail(image=image)
        world.deliver(detail)
        is_unchanged = np.array_equal(known.features["activations"], detail.activations.features)
        assert is_unchanged == (image is not None)


def test_details_of_the_same_batch_are_averaged_once(world: World) -> None:
    world.layers.request_newest("conv2", "tsne")
    known = world.layers.get("conv2")
    assert known is not None
    first, second = (replace(world.detail(), step=step) for step in (1, 2))
    world.deliver(first)
    world.deliver(second)
    before = known.features["gradients"].copy()
    world.deliver(replace(second, kernel_slice="mean"))

    assert np.array_equal(known.features["gradients"], before)
    assert known.detail is not None
    assert known.detail.kernel_slice == "mean"
