"""Makes the messages about classes from sums per class on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.class_sums import ClassSums

__all__ = ["MAX_SENT", "make_class_answers", "make_class_lens", "make_empty_class_lens"]

MAX_SENT = 128  # classes of a message


def make_empty_class_lens(
    layer: str, filter_count: int, note: str, context: BatchContext
) -> ClassLens:
    """Return the `ClassLens` message of a layer without statistics of any class.

    It is sent before the first image with a class, or with the reason why there are no classes.

    Args:
        layer: the name of the layer.
        filter_count: the number of filters of the layer.
        note: the reason why there are no classes; "" if there are some.
        context: the batch that the message describes.
    """
    matrix, row = np.zeros((filter_count, 0), np.float32), np.zeros(filter_count, np.float32)
    return ClassLens(
        context.run,
        context.version,
        context.step,
        layer,
        classes=[],
        names=[],
        counts=np.zeros(0, np.float32),
        activation=matrix,
        gradient=matrix,
        mean=row,
        deviation=row,
        gradient_scale=row,
        note=note,
    )


def make_class_lens(
    layer: str, sums: ClassSums, class_names: Sequence[str], context: BatchContext
) -> ClassLens:
    """Return the `ClassLens` message of a layer: the mean response of each filter to each class.

    Args:
        layer: the name of the layer.
        sums: the sums over the images of each class, for the filters of the layer.
        class_names: the names of all classes; () if they are unknown.
        context: the batch that the message describes.
    """
    columns = _largest(sums.counts()[0])
    at = torch.from_numpy(columns).to(sums.counts().device)
    means = sums.class_means()[:, at].transpose(1, 2)
    squares = sums.overall_mean_squares()
    classes = columns.tolist()
    return ClassLens(
        context.run,
        context.version,
        context.step,
        layer,
        classes,
        [class_names[index] if index < len(class_names) else "" for index in classes],
        counts=_to_host(sums.counts()[0, at]),
        activation=_to_host(means[0]),
        gradient=_to_host(means[1]),
        mean=_to_host(sums.overall_means()[0]),
        deviation=_to_host(_deviation(sums)),
        gradient_scale=_to_host(squares[1].sqrt()),
        batches=sums.batches,
    )


def make_class_answers(
    class_index: int,
    widths: Mapping[str, int],
    sums_by_layer: Mapping[str, ClassSums],
    class_names: Sequence[str],
    context: BatchContext,
) -> ClassAnswers:
    """Return the `ClassAnswers` message: how much each filter of the network responds to a class.

    Args:
        class_index: the index of the class.
        widths: how many filters each layer has, in the order of the filters.
        sums_by_layer: per layer, the sums of images of this class, number 0, and of others, number
            1.
        class_names: the names of all classes; () if they are unknown.
        context: the batch that the message describes.
    """
    effects, images = [], 0.0
    for layer, width in widths.items():
        sums = sums_by_layer.get(layer)
        if sums is None or not sums.class_count:
            effects.append(np.full(width, np.nan, np.float32))
            continue
        deviation, above = _deviation(sums), sums.class_means()[0, 0] - sums.overall_means()[0]
        effects.append(_to_host(torch.where(deviation > 0, above / deviation, above * 0)))
        images = max(images, float(sums.counts()[0, 0]))
    return ClassAnswers(
        context.run,
        context.version,
        context.step,
        class_index,
        np.concatenate(effects),
        images,
        list(class_names),
    )


def _deviation(sums: ClassSums) -> Tensor:
    """Return the standard deviation of the activation over all images, (C,)."""
    variance = sums.overall_mean_squares()[0] - sums.overall_means()[0].square()
    return variance.clamp_min(0).sqrt()


def _largest(counts: Tensor) -> np.ndarray:
    """Return the classes with images, in their order; of too many, those with the most images."""
    values = counts.cpu().numpy()
    order = np.argsort(-values, kind="stable")[:MAX_SENT]
    return np.sort(order[values[order] > 0])


def _to_host(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
