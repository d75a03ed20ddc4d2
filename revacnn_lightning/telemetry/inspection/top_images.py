"""The training images that excite a filter most, of recent batches.

While somebody inspects a filter, each batch's maps of it are reduced to the strongest response of
every image and its place, on the device. What crosses to the host, without anybody waiting, are
these few numbers; pixels only of an image that is among the strongest. Nothing is computed of
filters that nobody inspects.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox

__all__ = ["RankedImage", "ResponseRecorder", "Responses", "TopImages", "levels"]

MOST = 9  # images kept of a filter
RECENT_BATCHES = 500  # an older find is of a filter that has changed since
LARGEST_CROP = 96  # pixels of a side of what is kept of an image


@dataclass
class Responses:
    """The strongest response of each image of a batch to one filter.

    ``numbers`` (2, B) on the device: the responses, and their places as ``row * W + column``.
    ``size``: (H, W) of the map.
    """

    numbers: Tensor
    size: tuple[int, int]


class ResponseRecorder:
    """Reduces the maps of the filters that are inspected, as they come by."""

    def __init__(self) -> None:
        self._filters: dict[str, set[int]] = {}
        self._seen: dict[tuple[str, int], Responses] = {}
        self._listens = False

    @property
    def filters(self) -> frozenset[tuple[str, int]]:
        """(layer, index) of those that are inspected."""
        return frozenset((name, one) for name, some in self._filters.items() for one in some)

    def follow(self, filters: Collection[tuple[str, int]]) -> None:
        """Inspect these filters, (layer, index), from the next batch on; and no others."""
        wanted = defaultdict(set)
        for layer, index in filters:
            wanted[layer].add(index)
        self._filters = dict(wanted)

    def begin(self, listens: bool) -> None:
        """A batch begins; ``listens``: whether its maps are looked at."""
        self._listens = listens and bool(self._filters)
        self._seen = {}

    def wants(self, layer: str) -> bool:
        """Whether `saw` is of use on this batch."""
        return self._listens and layer in self._filters

    def saw(self, layer: str, maps: Tensor) -> None:
        """The activation maps of a batch, (B, C, H, W). Of several calls the first counts."""
        with torch.no_grad():
            for index in self._filters[layer]:
                if (layer, index) in self._seen or index >= maps.shape[1] or not maps.numel():
                    continue
                strongest, place = maps.detach()[:, index].flatten(1).max(1)
                numbers = torch.stack([strongest.float(), place.float()])
                self._seen[layer, index] = Responses(numbers, (maps.shape[2], maps.shape[3]))

    def take(self) -> dict[tuple[str, int], Responses]:
        """What was seen in the batch that has ended."""
        seen, self._seen = self._seen, {}
        return seen


@dataclass
class RankedImage:
    """What of a training image excites a filter.

    ``crop`` uint8 (1 or 3, h, w): the pixels of ``box``, or fewer by averaging; ``size``: (H, W) of
    the image. ``step``: of the batch, counted as `TopImages.add` was called.
    """

    response: float
    step: int
    crop: np.ndarray
    box: PixelBox
    size: tuple[int, int]
    image: int  # tells images apart


class TopImages:
    """The strongest responses of recent batches, at most one of each image."""

    def __init__(self) -> None:
        self._finds: list[RankedImage] = []

    def best(self, step: int) -> list[RankedImage]:
        """The strongest first; ``step``: the batch now."""
        self._forget_older_than(step - RECENT_BATCHES)
        return list(self._finds)

    def add(
        self,
        step: int,
        responses: np.ndarray,
        images: Tensor,
        box: Callable[[int], PixelBox],
    ) -> None:
        """Take note of a batch.

        Args:
            step: which batch.
            responses: (2, B), as `Responses.numbers`.
            images: (B, channels, H, W); read where a response is among the strongest.
            box: from the place of a response to what of the image is seen there.
        """
        self._forget_older_than(step - RECENT_BATCHES)
        strongest, places = responses
        strongest = np.where(np.isfinite(strongest), strongest, -math.inf)
        for at in np.argsort(-strongest, kind="stable")[:MOST]:
            response = float(strongest[at])
            full = len(self._finds) == MOST
            if response <= 0 or (full and response <= self._finds[-1].response):
                return
            self._insert(response, step, images[int(at)], box(int(places[at])))

    def _insert(self, response: float, step: int, image: Tensor, box: PixelBox) -> None:
        pixels = image.detach().float().cpu()
        key = zlib.crc32(pixels.numpy().tobytes())
        crop = levels(pixels)[:, box.top : box.bottom, box.left : box.right]
        size = (pixels.shape[1], pixels.shape[2])
        known = next((find for find in self._finds if find.image == key), None)
        if known is not None:  # seen in another epoch: what holds is how it excites the filter now
            self._finds.remove(known)
        self._finds.append(RankedImage(response, step, _small(crop), box, size, key))
        self._finds.sort(key=lambda find: -find.response)
        del self._finds[MOST:]

    def _forget_older_than(self, step: int) -> None:
        self._finds = [find for find in self._finds if find.step > step]


def levels(image: Tensor) -> np.ndarray:
    """(channels, H, W) -> uint8 (1 or 3, H, W), the image's own range spread over all levels."""
    values = torch.nan_to_num(image.float(), nan=0.0, posinf=0.0, neginf=0.0)
    if values.shape[0] != 3:
        values = values.mean(0, keepdim=True)
    low, high = values.amin(), values.amax()
    spread = (values - low) / (high - low).clamp_min(1e-12)
    return (255 * spread).round().to(torch.uint8).cpu().numpy()


def _small(crop: np.ndarray) -> np.ndarray:
    """A copy of at most `LARGEST_CROP` pixels a side."""
    largest = max(crop.shape[1:])
    if largest <= LARGEST_CROP:
        return crop.copy()
    height, width = (max(1, round(side * LARGEST_CROP / largest)) for side in crop.shape[1:])
    means = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(crop).float(), (height, width))
    return means.round().to(torch.uint8).numpy()
