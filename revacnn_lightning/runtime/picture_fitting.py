"""Makes an input of the network of a picture: by the data's own preprocessing, or by its images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.image_class import MAX_WRAPPERS
from revacnn_lightning.telemetry.inspection.side_effects import dataset_state_restored

__all__ = ["Preprocessing", "dataset_preprocessing", "fit_picture", "preprocess_color"]

log = logging.getLogger(__name__)

GRAY = (0.299, 0.587, 0.114)  # luma of red, green and blue: ITU-R BT.601
PILLOW_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by channels, as torchvision's datasets load images
BY_RANGE = "its values are scaled to the range of those in the images of the batch"


@dataclass(frozen=True)
class Preprocessing:
    """A function that prepares images as those of the validation data are, and its name.

    Attributes:
        name: the name that the user sees.
        run: (picture uint8 (H, W, 3), number of channels) -> image (channels, h, w).
    """

    name: str
    run: Callable[[np.ndarray, int], Tensor]


def dataset_preprocessing(dataset: Any, device: torch.device) -> Preprocessing | None:
    """Return the preprocessing by the ``transform`` of a dataset; None if it has no transform.

    Datasets of torchvision have this attribute. Subsets and other wrappers are looked through.

    Args:
        dataset: the validation dataset. Its state and all random states are restored after a run.
        device: the device whose random state is restored, too.
    """
    inner = dataset
    for _ in range(MAX_WRAPPERS):
        transform = getattr(inner, "transform", None)
        if callable(transform):
            break
        inner = getattr(inner, "dataset", None)
    else:
        return None

    def run(picture: np.ndarray, channels: int) -> Tensor:
        from PIL import Image

        if channels not in PILLOW_MODES:
            raise _too_many_channels(channels)
        with dataset_state_restored(dataset, device):
            found = transform(Image.fromarray(picture).convert(PILLOW_MODES[channels]))
        if not isinstance(found, Tensor):
            raise TypeError(f"it returns {type(found).__name__}, no tensor")
        return found

    return Preprocessing("the transform of the validation data", run)


def fit_picture(
    picture: np.ndarray, like: Sequence[Tensor] | Tensor, preprocessing: Preprocessing | None
) -> tuple[Tensor, str]:
    """Return the picture as an image (channels, H, W) on the host, and how it was prepared.

    Args:
        picture: uint8 (H, W, 3).
        like: images of the data, (channels, H, W) each, at least one.
        preprocessing: the preprocessing of the data, if it is known.

    Raises:
        EditRefusedError: a picture has not as many channels as these images.
    """
    channels, reason = like[0].shape[0], ""
    if preprocessing is not None:
        try:
            image = preprocessing.run(picture, channels).detach().cpu()
            if image.ndim == 3 and image.shape[0] == channels:
                return image.to(like[0].dtype), f"prepared by {preprocessing.name}"
            reason = f"; {preprocessing.name} returns the shape {tuple(image.shape)}"
        except Exception as error:  # the user's code may raise anything
            log.info("Cannot prepare a picture by %s", preprocessing.name, exc_info=True)
            reason = f"; {preprocessing.name} cannot prepare it ({type(error).__name__}: {error})"
    return _fit_by_range(picture, like), BY_RANGE + reason


def preprocess_color(
    color: Sequence[int],
    image: Tensor,
    data_images: Sequence[Tensor],
    preprocessing: Preprocessing | None,
) -> Tensor:
    """Return a color as values of the network's input, (channels, 1, 1).

    The values are those that `fit_picture` makes of a picture in this color.

    Args:
        color: red, green and blue, 0 to 255.
        image: the image to be painted, (channels, H, W).
        data_images: images of the data.
        preprocessing: the preprocessing of the data, if it is known.
    """
    plain = np.broadcast_to(np.array(color, np.uint8), (*image.shape[1:], 3))
    fitted, _ = fit_picture(np.ascontiguousarray(plain), data_images, preprocessing)
    _, height, width = fitted.shape
    return fitted[:, height // 2, width // 2, None, None]


def _fit_by_range(picture: np.ndarray, like: Sequence[Tensor] | Tensor) -> Tensor:
    colors = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    image = _as_channels(colors, like[0].shape[0])
    height, width = like[0].shape[1:]
    cropped = _crop_to_aspect(image, height / width)
    resized = nn.functional.interpolate(
        cropped[None], size=(height, width), mode="bilinear", antialias=True
    )[0]
    low, high = _value_range(like)
    fitted = low + (high - low) * resized
    is_whole = not like[0].is_floating_point()
    return (fitted.round() if is_whole else fitted).to(like[0].dtype)


def _crop_to_aspect(image: Tensor, aspect: float) -> Tensor:
    """Return the middle of an image (channels, H, W) whose height is ``aspect`` of its width."""
    height, width = image.shape[1:]
    rows = max(1, min(height, round(width * aspect)))
    columns = max(1, min(width, round(height / aspect)))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[:, top : top + rows, left : left + columns]


def _as_channels(colors: Tensor, channels: int) -> Tensor:
    """Return red, green and blue (3, H, W), 0 to 1, as an image of so many channels."""
    if channels == 3:
        return colors
    gray = (colors * torch.tensor(GRAY)[:, None, None]).sum(0, keepdim=True)
    if channels == 1:
        return gray
    if channels == 4:
        return torch.cat([colors, torch.ones_like(gray)])
    raise _too_many_channels(channels)


def _too_many_channels(channels: int) -> EditRefusedError:
    return EditRefusedError(
        f"the network's images have {channels} channels, and a picture has red, green and blue; "
        "choose an image of the data instead, and paint over it"
    )


def _value_range(images: Sequence[Tensor] | Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest finite value of each channel, float (channels, 1, 1)."""
    low = torch.stack([_finite(image, torch.inf).amin((1, 2)) for image in images]).amin(0)
    high = torch.stack([_finite(image, -torch.inf).amax((1, 2)) for image in images]).amax(0)
    is_known = low <= high  # not if no value is finite
    low, high = torch.where(is_known, low, 0.0), torch.where(is_known, high, 1.0)
    return low[:, None, None], high[:, None, None]


def _finite(image: Tensor, otherwise: float) -> Tensor:
    values = image.detach().float().cpu()
    return torch.where(values.isfinite(), values, otherwise)
