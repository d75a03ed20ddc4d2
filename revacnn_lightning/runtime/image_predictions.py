"""What the model predicts for the chosen image: now, and directly before and after an edit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from revacnn_lightning.protocol.inspections import ClassScore, ImagePrediction
from revacnn_lightning.runtime.image_class import class_probabilities, top_classes
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free

__all__ = [
    "Forward",
    "GetTruth",
    "LabelAndClassNames",
    "PredictionsBeforeAndAfterEdit",
    "get_no_truth",
]

log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Any]  # (1, channels, H, W) -> the model's output


@dataclass(frozen=True)
class LabelAndClassNames:
    """The class of an image in the data, if it has one, and the names of all classes, if known."""

    index: int | None = None
    names: Sequence[str] = ()


GetTruth = Callable[[int], LabelAndClassNames]  # of a validation image


def get_no_truth(index: int) -> LabelAndClassNames:
    """Return an unknown class: the `GetTruth` of a training without validation data."""
    return LabelAndClassNames()


class _Scores(NamedTuple):
    """What one forward predicts; see `ImagePrediction`."""

    classes: Sequence[ClassScore] = ()
    truth: ClassScore | None = None
    note: str = ""


class PredictionsBeforeAndAfterEdit:
    """The predictions for the image that all viewers share, before and after the newest edit.

    Args:
        model: the network.
        forward: runs the model on a batch of one image; None if no image can be chosen.
        is_image_shown: returns whether a viewer shows the image.

    Attributes:
        before_edit, after_edit: the predictions directly before and after the newest edit since
            the image was chosen.
    """

    def __init__(
        self, model: nn.Module, forward: Forward | None, is_image_shown: Callable[[], bool]
    ) -> None:
        self._model = model
        self._forward = forward
        self._is_active = is_image_shown
        self._image: Tensor | None = None
        self._truth = LabelAndClassNames()
        self._scores: _Scores | None = None
        self.before_edit: ImagePrediction | None = None
        self.after_edit: ImagePrediction | None = None

    def choose_image(self, image: Tensor | None, truth: LabelAndClassNames) -> None:
        """Choose the image (channels, H, W) to predict from now on. None chooses no image."""
        self._image, self._truth, self._scores = image, truth, None
        self.before_edit = self.after_edit = None

    def run(self, images: Tensor) -> Any:
        """Run the model on the chosen image and keep its prediction; return the output."""
        assert self._forward is not None
        self._scores = None  # those of an earlier forward, if this one fails
        output = self._forward(images)
        try:
            self._scores = self._read(output)
        except Exception as error:  # of the user's own type of output
            log.info("Cannot read a prediction from the output", exc_info=True)
            self._scores = _Scores(note=f"The output cannot be read: {type(error).__name__}.")
        return output

    def _read(self, output: Any) -> _Scores:
        probabilities, note = class_probabilities(output)
        if probabilities is None:
            return _Scores(note=note)
        return _Scores(*top_classes(probabilities, self._truth.index, self._truth.names))

    def last_prediction(self, step: int, version: int) -> ImagePrediction | None:
        """Return the prediction of the last forward, which ran at this step and version."""
        if self._scores is None:
            return None
        classes, truth, note = self._scores
        return ImagePrediction(step, version, list(classes), truth, note)

    def predict(self, step: int, version: int) -> ImagePrediction | None:
        """Predict the chosen image between two batches; None if no viewer shows it or it fails."""
        if self._image is None or self._forward is None or not self._is_active():
            return None
        try:
            with side_effect_free(self._model, training=False):
                self.run(self._image.clone().unsqueeze(0))
        except Exception:  # the user's forward may raise anything
            log.info("Cannot predict the class of the chosen image", exc_info=True)
            return None
        return self.last_prediction(step, version)

    def record_change_by_edit(
        self, before: ImagePrediction | None, step: int, version: int
    ) -> None:
        """Keep the prediction ``before`` an edit, and predict again now that it is applied."""
        self.before_edit = before
        self.after_edit = None if before is None else self.predict(step, version)
