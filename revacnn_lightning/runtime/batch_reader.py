"""Reads from a batch what viewers see of it, and runs the module on other images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.batch_classes import BatchClasses, find_classes
from revacnn_lightning.runtime.batch_images import Images, ImagesOfBatch, find_images
from revacnn_lightning.runtime.batch_input import first_input
from revacnn_lightning.runtime.batch_samples import first_sample_with_image, first_samples
from revacnn_lightning.runtime.image_class import find_class
from revacnn_lightning.runtime.image_predictions import Forward, LabelAndClassNames
from revacnn_lightning.runtime.sample_forward import UserForward, accepts_images

__all__ = ["BatchReader", "make_image_forward"]

log = logging.getLogger(__name__)


class BatchReader:
    """Reads the images, the first input and the classes of batches.

    An exception of the user's function ``images`` is logged once.

    Args:
        images: the user's function that returns the images of a batch. None searches for them.
    """

    def __init__(self, images: ImagesOfBatch | None) -> None:
        self._images = images
        self._has_warned = False

    def find_images(self, batch: Any) -> Images | None:
        """Return the images of a batch; None if there are none or the user's function fails."""
        try:
            return find_images(batch, self._images)
        except EditRefusedError as error:
            if not self._has_warned:
                log.warning("ReVACNN shows no images: %s", error)
            self._has_warned = True
            return None

    def first_input(self, batch: Any) -> Tensor | None:
        """Return the first sample, (channels, ...) or (features,); None if there is none."""
        return first_input(batch, self.find_images(batch))

    def first_truth(self, batch: Any, class_names: Sequence[str]) -> LabelAndClassNames:
        """Return the class of that sample, as far as the batch says.

        Args:
            class_names: the names of all classes.
        """
        try:
            return LabelAndClassNames(
                find_class(first_samples(batch, 1, self._images)), class_names
            )
        except Exception:  # of the user's own type of batch
            log.info("Cannot read the class of the first sample of a batch", exc_info=True)
            return LabelAndClassNames(names=class_names)

    def find_classes(self, batch: Any, class_names: Sequence[str]) -> BatchClasses:
        """Return the classes of all samples, as far as the batch says.

        Args:
            class_names: the names of all classes.
        """
        try:
            return replace(find_classes(batch, self._images), names=class_names)
        except Exception:  # of the user's own type of batch
            log.info("Cannot read the classes of a batch", exc_info=True)
            return BatchClasses(names=class_names)


def make_image_forward(
    module: nn.Module,
    get_batch: Callable[[], Any],
    user_forward: UserForward | None,
    get_images: ImagesOfBatch | None,
) -> Forward | None:
    """Return a function that runs the module on a batch of images; None if there is none.

    Args:
        module: the user's module.
        get_batch: returns the batch of this step; None between steps.
        user_forward: the user's function that runs the module on a batch.
        get_images: the user's function that returns the images of a batch.
    """
    if user_forward is None and not accepts_images(module):
        return None

    def run(batch_of_images: Tensor) -> Any:
        """Run the module as on a batch of one image: it may expect a list, or targets."""
        batch = first_sample_with_image(get_batch(), batch_of_images, get_images)
        if user_forward is not None:
            return user_forward(module, batch_of_images if batch is None else batch)
        found = None if batch is None else find_images(batch, get_images)
        return module(found if isinstance(found, (list, tuple)) else batch_of_images)

    return run
