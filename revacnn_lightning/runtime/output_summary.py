"""Summarizes the output of the network for one input: classes, loss, and shapes of the outputs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from revacnn_lightning.protocol.inspections import ClassScore, ImagePrediction
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.batch_classes import PIXELS
from revacnn_lightning.runtime.batch_nesting import leaves
from revacnn_lightning.runtime.image_class import (
    all_or_top_classes,
    class_probabilities,
    mean_class_probabilities,
)
from revacnn_lightning.runtime.image_predictions import LabelAndClassNames

__all__ = ["OutputSummarizer", "OutputSummary"]

log = logging.getLogger(__name__)

MAX_OUTPUTS = 4  # tensors whose shapes are sent


@dataclass
class OutputSummary:
    """What `ImagePass` sends of the output for one input: classes, loss, and output shapes."""

    prediction: ImagePrediction | None = None
    class_count: int = 0
    names_note: str = ""
    loss: float | None = None
    shapes: list[list[int]] = field(default_factory=list)
    generated: np.ndarray | None = None
    has_failed: bool = False
    class_map_shape: Sequence[int] = ()


class OutputSummarizer:
    """Summarizes the output of a network for one input.

    Args:
        class_names: the class names that the user has given; () uses those of the data.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self._has_warned = False
        self._has_class_maps = False  # as the targets of a batch have shown

    def summarize(
        self, output: Any, truth: LabelAndClassNames, context: BatchContext
    ) -> OutputSummary:
        """Return the summary of an output.

        Args:
            output: what the network has returned for a batch of one input.
            truth: the class of the input, and the names of all classes.
            context: the batch that the summary describes.
        """
        step, version = context.step, context.version
        tensors = [leaf for leaf in leaves(output) if isinstance(leaf, Tensor)]
        summary = OutputSummary(shapes=[list(each.shape[1:]) for each in tensors[:MAX_OUTPUTS]])
        probabilities, note = class_probabilities(output)
        if probabilities is None:
            truth = LabelAndClassNames(None, truth.names)  # that of an image, not of a pixel
            probabilities, summary.class_map_shape = self._class_maps(output, truth, context)
        if probabilities is None:
            summary.prediction = ImagePrediction(step, version, note=note)
            return summary
        summary.class_count = len(probabilities)
        names, summary.names_note = self._names(truth, len(probabilities))
        classes, true_class = all_or_top_classes(probabilities, truth.index, names)
        summary.prediction = ImagePrediction(step, version, classes, true_class)
        summary.loss = _cross_entropy(true_class)
        return summary

    def _class_maps(
        self, output: Any, truth: LabelAndClassNames, context: BatchContext
    ) -> tuple[Tensor | None, Sequence[int]]:
        """Return the probabilities of classes that have a map each, and the shape of a map.

        Maps are those of classes if the targets are maps of classes, or if there are as many maps
        as classes have names and an image has no class of its own: an autoencoder returns maps,
        too.
        """
        names, targets = self._class_names or truth.names, context.batch.get_classes()
        if targets.labels is not None:
            return None, ()
        self._has_class_maps = self._has_class_maps or targets.note == PIXELS
        if names:
            found = mean_class_probabilities(output, len(names))
            if found[0] is not None:
                return found
        return mean_class_probabilities(output, None) if self._has_class_maps else (None, ())

    def _names(self, truth: LabelAndClassNames, count: int) -> tuple[Sequence[str], str]:
        """Return the names of the classes, and why those of the user are not used."""
        if not self._class_names or len(self._class_names) == count:
            return self._class_names or truth.names, ""
        note = f"class_names has {len(self._class_names)} names for {count} outputs"
        if not self._has_warned:
            log.warning("ReVACNN: %s, so the indices of the classes are shown", note)
        self._has_warned = True
        return (), note


def _cross_entropy(truth: ClassScore | None) -> float | None:
    """Return -ln p of the true class; None if it is unknown."""
    if truth is None:
        return None
    return -math.log(max(truth.probability, float(np.finfo(np.float32).tiny)))
