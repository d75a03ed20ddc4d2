"""The training images of recent batches that activate a filter most strongly.

They are signals or volumes where the inputs of the network are.

Only the peak responses of a batch (see `responses`) reach the host, asynchronously. Pixels are
copied only of an image that ranks among the strongest.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.inspection.downsampling import downsample_signal
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox, as_volume

__all__ = ["MAX_IMAGES", "RankedImage", "TopRecentImages", "to_uint8_image"]

MAX_IMAGES = 9  # of a filter
MAX_AGE = 500  # batches; the filter has changed since an older response
MAX_CROP_SIDE = 96  # pixels
MAX_CROP_SLICES = 48  # of a volume
MAX_SIGNAL_VALUES = 2**14  # of a crop
MAX_SIGNAL_CHANNELS = 128


@dataclass
class RankedImage:
    """The part of a training image that activates a filter.

    Attributes:
        response: the filter's maximum on this image.
        step: the batch of the image, as `TopRecentImages.add` was called.
        crop: uint8 (1 or 3, d, h, w), the pixels of ``box``, downsampled if they are many. That of
            a signal is (channels, 1, 1, l).
        box: the receptive field of the maximum.
        image_size: (D, H, W) of the whole image.
        image_id: checksum of its pixels, which identifies the image.
        is_volume: whether the image has slices.
    """

    response: float
    step: int
    crop: np.ndarray
    box: PixelBox
    image_size: tuple[int, int, int]
    image_id: int
    is_volume: bool = False


class TopRecentImages:
    """Ranking of the images of recent batches by their response, each image at most once."""

    def __init__(self) -> None:
        self._images: list[RankedImage] = []

    def ranked(self, step: int) -> list[RankedImage]:
        """Return the ranking as of batch ``step``, the strongest response first."""
        self._drop_expired(step)
        return list(self._images)

    def add(
        self,
        step: int,
        peaks: np.ndarray,
        images: Tensor | Sequence[Tensor],
        box_of: Callable[[int, int], PixelBox],
    ) -> None:
        """Add the images of a batch that rank among the strongest.

        Args:
            step: the batch.
            peaks: (2, B), as `FilterPeakResponses.peaks`.
            images: (B, channels, ...), or (channels, ...) each; only images that enter the
                ranking are read.
            box_of: returns the receptive field of (index of the image, position in its map).
        """
        self._drop_expired(step)
        responses, positions = peaks
        responses = np.where(np.isfinite(responses), responses, -math.inf)
        for i in np.argsort(-responses, kind="stable")[:MAX_IMAGES]:
            response = float(responses[i])
            is_full = len(self._images) == MAX_IMAGES
            if response <= 0 or (is_full and response <= self._images[-1].response):
                return
            box = box_of(int(i), int(positions[i]))
            self._insert(response, step, images[int(i)], box)

    def _insert(self, response: float, step: int, image: Tensor, box: PixelBox) -> None:
        pixels = image.detach().float().cpu()
        image_id = zlib.crc32(pixels.numpy().tobytes())
        levels = as_volume(to_uint8_image(pixels))
        crop, size = box.crop(levels), (*levels.shape[1:],)
        crop = _downsample_signal(crop) if image.dim() == 2 else _downsample(crop)
        # An image of an earlier epoch is replaced: its response was that of an older filter.
        others = [ranked for ranked in self._images if ranked.image_id != image_id]
        others.append(
            RankedImage(response, step, crop.numpy().copy(), box, size, image_id, image.dim() == 4)
        )
        others.sort(key=lambda ranked: -ranked.response)
        self._images = others[:MAX_IMAGES]

    def _drop_expired(self, step: int) -> None:
        self._images = [ranked for ranked in self._images if ranked.step > step - MAX_AGE]


def to_uint8_image(image: Tensor) -> Tensor:
    """Stretch the image's own range to 0..255: (channels, ...) -> uint8 (1 or 3, ...).

    Images with any other number of channels than three become gray, the mean over the channels. A
    signal (channels, L) keeps its channels.
    """
    values = torch.nan_to_num(image.float(), nan=0.0, posinf=0.0, neginf=0.0)
    if values.shape[0] != 3 and values.dim() > 2:
        values = values.mean(0, keepdim=True)
    low, high = values.amin(), values.amax()
    stretched = (values - low) / (high - low).clamp_min(1e-12)
    return (255 * stretched).round().to(torch.uint8).cpu()


def _downsample(crop: Tensor) -> Tensor:
    """Return (channels, d, h, w) with few enough pixels."""
    _, depth, height, width = crop.shape
    scale = min(1.0, MAX_CROP_SIDE / max(height, width))
    shrunk = (max(1, round(side * scale)) for side in (height, width))
    size = min(depth, MAX_CROP_SLICES), next(shrunk), next(shrunk)
    if size == crop.shape[1:]:
        return crop
    means = nn.functional.adaptive_avg_pool3d(crop.float(), size)
    return means.round().to(torch.uint8)


def _downsample_signal(crop: Tensor) -> Tensor:
    """Return (channels, 1, 1, l) with few enough values; many channels become means of some."""
    if len(crop) > MAX_SIGNAL_CHANNELS:
        size = MAX_SIGNAL_CHANNELS, crop.shape[-1]
        means = nn.functional.adaptive_avg_pool2d(crop[:, 0, 0][None].float(), size)
        crop = means.round().to(torch.uint8)[0][:, None, None]
    return downsample_signal(crop, MAX_SIGNAL_VALUES // len(crop))
