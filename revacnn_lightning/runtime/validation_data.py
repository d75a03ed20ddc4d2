"""The validation data of a training, one item at a time, as a page shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.batch_images import (
    ImagesOfBatch,
    find_image_or_other_input,
    find_images,
)
from revacnn_lightning.runtime.image_class import class_names, find_class
from revacnn_lightning.runtime.image_predictions import LabelAndClassNames
from revacnn_lightning.runtime.input_images import raise_no_validation_images
from revacnn_lightning.runtime.picture_fitting import Preprocessing, dataset_preprocessing
from revacnn_lightning.telemetry.inspection.side_effects import dataset_state_restored

__all__ = ["ValidationData", "find_class_names"]

log = logging.getLogger(__name__)

NOT_LOADED = (
    "the Trainer loads the validation data right before the first validation; choose an image "
    "after that, or validate earlier (check_val_every_n_epoch, num_sanity_val_steps)"
)


class ValidationData:
    """Reads single items of the dataset of a loader, without changing random states.

    Args:
        get_loader: returns the loader of the validation data; None if there is none.
        get_device: returns the device of the model.
        images: the user's function that returns the images of a batch. None searches for them.
        get_class_names: returns the names of all classes; () if they are unknown.
        convert: gives an image the type of those in a batch.
        is_expected: whether a loader will be there later.
    """

    def __init__(
        self,
        get_loader: Callable[[], Any],
        get_device: Callable[[], torch.device],
        *,
        images: ImagesOfBatch | None = None,
        get_class_names: Callable[[], Sequence[str]] = tuple,
        convert: Callable[[Tensor], Tensor] = lambda image: image,
        is_expected: Callable[[], bool] = lambda: False,
    ) -> None:
        self._get_loader = get_loader
        self._get_device = get_device
        self._images = images
        self._get_class_names = get_class_names
        self._convert = convert
        self._is_expected = is_expected

    def image(self, index: int) -> Tensor:
        """Return image ``index``, on the model's device: a signal, volume or features if it is one.

        It has the type of those in a batch, such as bfloat16 with ``precision="bf16-true"``.

        Raises:
            EditRefusedError: there is no validation data, or no such image in it.
        """
        loader = self._get_loader()
        if loader is None and self._is_expected():
            raise EditRefusedError(NOT_LOADED)
        dataset: Any = getattr(loader, "dataset", None)
        if not all(hasattr(dataset, name) for name in ("__getitem__", "__len__")):
            return raise_no_validation_images(index)
        if not 0 <= index < len(dataset):
            raise EditRefusedError(
                f"there is no validation image {index}; choose one of 0 to {len(dataset) - 1}"
            )
        device = self._get_device()
        image = self._load_input(loader, index, device)
        if image is None:
            raise EditRefusedError(
                f"item {index} of the validation data holds no image (channels, H, W), signal or "
                "row of numbers; pass the option images=lambda batch: ... to say where the images "
                "of a batch are"
            )
        return self._convert(image.to(device, copy=True))

    def _load_input(self, loader: Any, index: int, device: torch.device) -> Tensor | None:
        """Return the input of one item of a loader's dataset; None if the item holds none."""
        try:
            with dataset_state_restored(loader.dataset, device):
                sample = loader.dataset[index]
                if self._images is None:
                    return find_image_or_other_input(sample)
                found = find_images(loader.collate_fn([sample]), self._images)
                return next(iter(found or ()), None)
        except EditRefusedError:  # of the user's function of images
            raise
        except Exception as error:  # the user's dataset may raise anything
            detail = f"{type(error).__name__}: {error}"
            raise EditRefusedError(
                f"item {index} of the validation data cannot be loaded ({detail}); choose another "
                "one"
            ) from error

    def truth(self, index: int) -> LabelAndClassNames:
        """Return the class of item ``index``, as far as known."""
        dataset: Any = getattr(self._get_loader(), "dataset", None)
        try:
            with dataset_state_restored(dataset, self._get_device()):
                return LabelAndClassNames(find_class(dataset[index]), self._get_class_names())
        except Exception:  # the user's dataset may raise anything
            log.info(
                "Cannot read the class of item %d of the validation data", index, exc_info=True
            )
            return LabelAndClassNames()

    def preprocessing(self) -> Preprocessing | None:
        """Return what prepares the images, if it is known."""
        dataset: Any = getattr(self._get_loader(), "dataset", None)
        return dataset_preprocessing(dataset, self._get_device())


def find_class_names(loaders: Iterable[Any], *others: Any) -> Sequence[str]:
    """Return the class names from the datasets of loaders, or from other objects; () if none."""
    datasets = [getattr(loader, "dataset", None) for loader in loaders]
    return next((names for names in map(class_names, (*datasets, *others)) if names), ())
