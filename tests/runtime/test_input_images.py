"""Images that viewers make: pictures, and images with patches painted over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from revacnn_lightning import EditRefusedError, Patch
from revacnn_lightning.protocol.inspection_requests import PaintImage, ShowPicture
from revacnn_lightning.protocol.pictures import picture_requests
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.image_predictions import LabelAndClassNames
from revacnn_lightning.runtime.input_images import KEPT, DataAndViewerImages

RED = np.full((6, 6, 3), (255, 0, 0), np.uint8)


class World:
    """A training whose batch holds one image, black above and white below."""

    def __init__(self, images: Tensor | None = None, **options: Any) -> None:
        if images is None:
            images = torch.tensor([-1.0, 3.0]).repeat_interleave(3)[None, None, :, None]
            images = images.expand(1, 3, 6, 6)
        truth = LabelAndClassNames(1, ("a", "b"))
        self.batch = TrainingBatch(
            get_images=lambda: images, get_input=lambda: images[0], get_truth=lambda: truth
        )
        self.images = DataAndViewerImages(
            self.validation_image, get_batch=lambda: self.batch, **options
        )

    def validation_image(self, index: int) -> Tensor:
        return torch.full((3, 6, 6), float(index))

    def show(self, index: int, picture: np.ndarray) -> Tensor:
        for request in picture_requests(index, picture):
            self.images.select(request)
        return self.images.image(index)


@pytest.fixture
def world() -> World:
    return World()


def test_a_picture_has_the_range_and_the_size_of_the_images_of_the_batch(world: World) -> None:
    image = world.show(-5, RED)
    assert image.shape == (3, 6, 6)
    assert image[0].unique().tolist() == pytest.approx([3.0])
    assert image[1:].unique().tolist() == pytest.approx([-1.0])
    assert "range of those in the images of the batch" in world.images.preparation_note(-5)
    assert world.images.truth(-5) == LabelAndClassNames(None, ("a", "b"))


def test_the_middle_of_a_wide_picture_is_shown(world: World) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255
    assert world.show(-1, wide).min().item() == pytest.approx(3.0)


def test_a_picture_arrives_in_any_order_of_its_rows(world: World) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    expected = world.show(-1, picture)
    requests = picture_requests(-2, picture)
    assert len(requests) > 5
    for request in requests[:0:-1]:
        world.images.select(request)
    with pytest.raises(EditRefusedError, match="show the picture again"):
        world.images.image(-2)
    world.images.select(requests[0])
    assert torch.equal(world.images.image(-2), expected)


@pytest.mark.parametrize(("channels", "value"), [(1, 0.299 * 4 - 1), (4, 3.0)])
def test_networks_for_gray_images_or_with_opacity_see_pictures_too(
    channels: int, value: float
) -> None:
    images = torch.tensor([-1.0, 3.0]).repeat_interleave(8).reshape(1, 1, 4, 4)
    image = World(images.expand(1, channels, 4, 4)).show(-1, RED)
    assert image.shape == (channels, 4, 4)
    assert image[0].mean().item() == pytest.approx(value)


@pytest.mark.parametrize(
    ("shape", "reason"), [((1, 13, 4, 4), "13 channels"), ((1, 3, 50), "inputs are images")]
)
def test_inputs_that_no_picture_fits_are_refused(shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(EditRefusedError, match=reason):
        World(torch.zeros(shape)).show(-1, RED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": (0, 6)}, "resize it"),
        ({"size": (10**9, 6)}, "resize it"),
        ({"size": (-1, -1)}, "resize it"),
        ({"first_row": -1}, "whole rows"),
        ({"first_row": 1}, "whole rows"),
        ({"first_row": 10**18}, "whole rows"),
        ({"pixels": b""}, "whole rows"),
        ({"pixels": bytes(107)}, "whole rows"),
    ],
)
def test_wrong_pictures_are_refused(world: World, change: dict[str, Any], reason: str) -> None:
    request = {"index": -1, "size": (6, 6), "first_row": 0, "pixels": bytes(108), **change}
    with pytest.raises(EditRefusedError, match=reason):
        world.images.select(ShowPicture(**request))


def test_only_the_last_images_are_kept(world: World) -> None:
    for index in range(-1, -KEPT - 2, -1):
        world.show(index, RED)
        world.images.image(-1)  # one that is shown stays
    world.images.image(-1)
    with pytest.raises(EditRefusedError, match="keeps it no more"):
        world.images.image(-2)


def test_pictures_that_never_arrive_in_full_are_forgotten(world: World) -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    first, *rest = picture_requests(-1, picture)
    world.images.select(first)
    for index in range(-2, -KEPT - 3, -1):
        world.images.select(picture_requests(index, picture)[0])
    for request in rest:
        world.images.select(request)
    with pytest.raises(EditRefusedError):
        world.images.image(-1)


def test_a_client_that_makes_images_without_end_is_refused(world: World) -> None:
    def make_many() -> None:
        for index in range(-1, -60, -1):
            world.images.select(PaintImage(index))

    with pytest.raises(EditRefusedError, match="images per second"):
        make_many()


def test_an_erased_patch_is_the_mean_of_the_image(world: World) -> None:
    world.images.select(PaintImage(-1, 2, [Patch(0, 0, 1, 1)]))
    assert torch.equal(world.images.image(-1), world.validation_image(2))
    world.images.select(PaintImage(-2, None, [Patch(0, 0.5, 0.5, 1)]))
    image = world.images.image(-2)
    assert image[:, :3, 3:].unique().tolist() == [1.0]
    assert image[:, :3, :3].unique().tolist() == [-1.0]
    assert image[:, 3:].unique().tolist() == [3.0]
    assert world.images.truth(-2) == LabelAndClassNames(
        1, ("a", "b")
    )  # it is still the same sample


def test_a_painted_patch_has_the_color_that_a_picture_would_have(world: World) -> None:
    world.show(-1, RED)
    world.images.select(PaintImage(-2, -1, [Patch(0.9, 0.9, 0.95, 0.95, (0, 255, 0))]))
    image = world.images.image(-2)
    assert image[:, 5, 5].tolist() == pytest.approx([-1.0, 3.0, -1.0])  # at least one pixel
    assert torch.equal(image[:, :5], world.images.image(-1)[:, :5])
    assert "range" in world.images.preparation_note(-2)


def test_the_input_that_was_shown_is_painted_not_the_one_of_now(world: World) -> None:
    shown = torch.full((3, 6, 6), 7.0)
    world.images.remember_shown_input(shown, LabelAndClassNames(0))
    shown.zero_()  # the loader reuses its memory
    world.images.select(PaintImage(-1))
    assert world.images.image(-1).unique().tolist() == [7.0]
    assert world.images.truth(-1) == LabelAndClassNames(0)


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (Patch(float("nan"), 0, 1, 1), "from 0 to 1"),
        (Patch(0, 0, 1, 1.5), "from 0 to 1"),
        (Patch(0, 0, float("inf"), 1), "from 0 to 1"),
        (Patch(0.5, 0, 0.5, 1), "top to bottom"),
        (Patch(0, 0, 1, 1, (0, 256, 0)), "0 to 255"),
    ],
)
def test_wrong_patches_are_refused(world: World, patch: Patch, reason: str) -> None:
    with pytest.raises(EditRefusedError, match=reason):
        world.images.select(PaintImage(-1, None, [patch]))


def test_features_cannot_be_painted(world: World) -> None:
    world.images.remember_shown_input(torch.zeros(5), LabelAndClassNames())
    with pytest.raises(EditRefusedError, match="inputs are images"):
        world.images.select(PaintImage(-1))


def test_between_two_batches_a_picture_is_fitted_to_the_validation_data(world: World) -> None:
    world.batch = TrainingBatch()
    assert world.show(-1, RED).shape == (3, 6, 6)
