"""The images that viewers choose: those of the validation data, and those that they make."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.inspection_requests import MAX_PICTURE_SIDE
from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import PaintImage, Patch, ShowPicture
from revacnn_lightning.runtime.batch import BatchContext, TrainingBatch
from revacnn_lightning.runtime.image_predictions import (
    GetTruth,
    LabelAndClassNames,
    get_no_truth,
)
from revacnn_lightning.runtime.picture_fitting import Preprocessing, fit_picture, preprocess_color

__all__ = ["DataAndViewerImages", "GetImage", "raise_no_validation_images"]

KEPT = 8  # images that were made, on the host
RANGE_IMAGES = 64  # of a batch, whose values those of a picture are fitted to
IMAGES_PER_SECOND, IMAGES_IN_A_ROW = 10.0, 20.0  # that are made
NOT_AN_IMAGE = (
    "pictures can be shown to networks whose inputs are images (channels, H, W); the input here is "
    "none"
)

GetImage = Callable[[int], Tensor]  # index -> (channels, H, W), on the model's device


def raise_no_validation_images(index: int) -> Tensor:
    """Raise `EditRefusedError`: the `GetImage` of a training without validation images."""
    raise EditRefusedError(
        "this training has no validation images to choose from; show the first of the batch instead"
    )


@dataclass
class _Arriving:
    """A picture that has not arrived completely."""

    pixels: np.ndarray  # uint8 (H, W, 3)
    has_row: np.ndarray  # bool (H,)


@dataclass(frozen=True)
class _Made:
    """An image that was made."""

    image: Tensor  # (channels, H, W), on the host
    truth: LabelAndClassNames
    device: torch.device  # where the network expects it
    note: str = ""  # how the picture was prepared


class DataAndViewerImages:
    """Returns images by their index: those of the validation data, and those that viewers make.

    Images that viewers make have a negative index.

    It is the `Collector` of the requests that make images; it sends nothing itself.

    Args:
        get_image: returns an image of the validation data by its index, from 0.
        get_truth: returns the class of such an image.
        get_batch: returns the batch of this moment.
        find_preprocessing: returns what prepares the validation data, if it is known.
    """

    def __init__(
        self,
        get_image: GetImage = raise_no_validation_images,
        get_truth: GetTruth = get_no_truth,
        get_batch: Callable[[], TrainingBatch] = TrainingBatch,
        find_preprocessing: Callable[[], Preprocessing | None] = lambda: None,
    ) -> None:
        self._get_image = get_image
        self._get_truth = get_truth
        self._get_batch = get_batch
        self._find_preprocessing = find_preprocessing
        self._made: OrderedDict[int, _Made] = OrderedDict()
        self._arriving: OrderedDict[int, _Arriving] = OrderedDict()
        self._shown_input: _Made | None = None
        self._known: list[Tensor] = []  # images of the data, if no batch is at hand
        self._budget = TokenBucket(IMAGES_PER_SECOND, IMAGES_IN_A_ROW)

    def image(self, index: int) -> Tensor:
        """Return an image (channels, H, W), on the model's device.

        Raises:
            EditRefusedError: there is no such image.
        """
        if index >= 0:
            return self._get_image(index)
        made = self._find(index)
        return made.image.to(made.device, copy=True)

    def truth(self, index: int) -> LabelAndClassNames:
        """Return the class of an image, as far as known."""
        return self._get_truth(index) if index >= 0 else self._find(index).truth

    def preparation_note(self, index: int | None) -> str:
        """Return how a picture became this image; "" if the image was made of no picture."""
        made = None if index is None else self._made.get(index)
        return "" if made is None else made.note

    def remember_shown_input(self, values: Tensor, truth: LabelAndClassNames) -> None:
        """Keep the input of a batch that viewers see: they may paint over it."""
        copied = values.detach().to("cpu", copy=True)
        self._shown_input = _Made(copied, truth, values.device)

    def select(self, request: ShowPicture | PaintImage) -> None:
        """Make an image, or add rows to its picture.

        Raises:
            EditRefusedError: the request makes none, or the network's inputs are no images.
        """
        if isinstance(request, ShowPicture):
            picture = self._add_rows(request)
            made = None if picture is None else self._fit(picture)
        else:
            self._check_budget()
            made = self._paint(request)
        if made is not None:
            self._made[request.index] = made
            self._made.move_to_end(request.index)
        while len(self._made) > KEPT:
            self._made.popitem(last=False)

    def collect(self, context: BatchContext) -> Sequence[Message]:
        """Return nothing: the images are sent by those who show them."""
        return ()

    def reset(self) -> None:
        """Keep everything: no image depends on the structure of the network."""

    def _find(self, index: int) -> _Made:
        if index not in self._made:
            raise EditRefusedError(
                f"the run has no image {index}, or keeps it no more: it keeps the last {KEPT} that "
                "viewers have made; show the picture again"
            )
        self._made.move_to_end(index)
        return self._made[index]

    def _check_budget(self) -> None:
        if not self._budget.try_take():
            raise EditRefusedError(
                f"more than {IMAGES_PER_SECOND:.0f} images per second are made; make fewer"
            )

    # ------------------------------------------------------------------ pictures

    def _add_rows(self, request: ShowPicture) -> np.ndarray | None:
        """Return the picture, uint8 (H, W, 3), once all of its rows have arrived."""
        height, width = request.size
        if not (0 < height <= MAX_PICTURE_SIDE and 0 < width <= MAX_PICTURE_SIDE):
            raise EditRefusedError(
                f"a picture has 1×1 to {MAX_PICTURE_SIDE}×{MAX_PICTURE_SIDE} pixels, not "
                f"{height}×{width}; resize it"
            )
        count, rest = divmod(len(request.pixels), 3 * width)
        if rest or not count or not 0 <= request.first_row <= height - count:
            raise EditRefusedError(
                f"{len(request.pixels)} bytes from row {request.first_row} are no rows of a "
                f"picture of {height}×{width}; send red, green and blue of whole rows"
            )
        arriving = self._arriving.get(request.index)
        if arriving is None or arriving.pixels.shape[:2] != (height, width):
            self._check_budget()
            empty = np.zeros((height, width, 3), np.uint8)
            arriving = self._arriving[request.index] = _Arriving(empty, np.zeros(height, bool))
        while len(self._arriving) > KEPT:
            self._arriving.popitem(last=False)
        rows = slice(request.first_row, request.first_row + count)
        pixels = np.frombuffer(request.pixels, np.uint8)
        arriving.pixels[rows], arriving.has_row[rows] = pixels.reshape(count, width, 3), True
        if not arriving.has_row.all():
            return None
        del self._arriving[request.index]
        return arriving.pixels

    def _fit(self, picture: np.ndarray) -> _Made:
        known = self._images_of_data()
        image, note = fit_picture(picture, known, self._find_preprocessing())
        return _Made(image, self._no_class(), known[0].device, note)

    def _images_of_data(self) -> list[Tensor]:
        """Return images (channels, H, W) of the data, at least one.

        Raises:
            EditRefusedError: its samples are no images.
        """
        images = self._get_batch().images
        if images is not None:
            known = [images[i].detach() for i in range(min(len(images), RANGE_IMAGES))]
        else:  # between two batches
            known = self._known or [self._get_image(0)]
        if any(image.ndim != 3 or not image.numel() for image in known):
            raise EditRefusedError(NOT_AN_IMAGE)
        self._known = [image.clone() for image in known[:1]]  # not the whole batch
        return known

    def _no_class(self) -> LabelAndClassNames:
        """Return that the class is unknown, with the names of all classes."""
        truth = self._get_batch().get_truth()
        if not truth.names and self._shown_input is not None:
            truth = self._shown_input.truth
        return replace(truth, index=None)

    # ------------------------------------------------------------------ painting

    def _paint(self, request: PaintImage) -> _Made:
        source = self._source(request.source)
        if source.image.ndim != 3 or not source.image.numel():
            raise EditRefusedError(NOT_AN_IMAGE)
        image = source.image.detach().to("cpu", copy=True)
        mean = image.float().mean((1, 2), keepdim=True).to(image.dtype)
        colors: dict[tuple[int, int, int], Tensor] = {}
        for patch in request.patches:
            rows, columns = _pixels_of(patch, *image.shape[1:])
            fill = mean
            if patch.color is not None:
                if patch.color not in colors:
                    colors[patch.color] = self._fill(patch.color, image)
                fill = colors[patch.color]
            image[:, rows, columns] = fill
        return replace(source, image=image)

    def _source(self, index: int | None) -> _Made:
        if index is not None and index < 0:
            return self._find(index)
        if index is not None:
            image = self._get_image(index)
            return _Made(image, self._get_truth(index), image.device)
        if self._shown_input is not None:
            return self._shown_input
        batch = self._get_batch()
        found = batch.get_input()
        if found is None:
            raise EditRefusedError(
                "no input of the batch is at hand; repeat this with the next one"
            )
        return _Made(found, batch.get_truth(), found.device)

    def _fill(self, color: tuple[int, int, int], image: Tensor) -> Tensor:
        if any(not 0 <= value <= 255 for value in color):
            raise EditRefusedError(f"a color is red, green and blue from 0 to 255, not {color}")
        return preprocess_color(color, image, self._images_of_data(), self._find_preprocessing())


def _pixels_of(patch: Patch, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of a patch: at least one of each."""
    edges = (patch.top, patch.left, patch.bottom, patch.right)
    if not all(math.isfinite(edge) and 0 <= edge <= 1 for edge in edges):
        raise EditRefusedError(f"the edges of a patch are shares from 0 to 1, not {edges}")
    if patch.top >= patch.bottom or patch.left >= patch.right:
        raise EditRefusedError(f"a patch reaches from top to bottom and left to right, not {edges}")
    return _span(patch.top, patch.bottom, height), _span(patch.left, patch.right, width)


def _span(start: float, end: float, size: int) -> slice:
    first = min(round(start * size), size - 1)
    return slice(first, max(first + 1, round(end * size)))
