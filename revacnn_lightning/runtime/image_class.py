"""The class of a sample of the validation data, and the scores that a model gives to classes.

A network for segmentation returns a map of scores for each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.protocol.inspections import ClassScore
from revacnn_lightning.runtime.batch_nesting import children_by_key, leaves

__all__ = [
    "MAX_WRAPPERS",
    "all_or_top_classes",
    "class_names",
    "class_probabilities",
    "find_class",
    "mean_class_probabilities",
    "top_classes",
]

CLASS_KEYS = ("label", "labels", "target", "targets", "class", "category", "y")
MAX_WRAPPERS = 8  # of a dataset: subsets of subsets
TOP_CLASSES = 3
FEW_CLASSES = 12  # of which all are listed, in their order
LISTED_CLASSES = 6  # the most probable ones of more


def find_class(sample: Any) -> int | None:
    """Return the class of a sample of a classification dataset; None if it has none.

    It is the first integer of a tuple or list, or the integer under a key or attribute named after
    classes.
    """
    inner = children_by_key(sample) or {}
    if isinstance(sample, (list, tuple)) and not hasattr(sample, "_fields"):
        candidates = list(inner.values())
    else:
        named = {str(key).lower(): value for key, value in inner.items()}
        candidates = [named[key] for key in CLASS_KEYS if key in named]
    return next((_to_int(each) for each in candidates if _is_integer(each)), None)


def _is_integer(value: Any) -> bool:
    """Return whether a value is a single integer, as a number or in an array."""
    if isinstance(value, Tensor):
        is_whole = not value.is_floating_point() and not value.is_complex()
        return is_whole and value.dtype != torch.bool and value.numel() == 1
    if isinstance(value, np.ndarray):
        return value.size == 1 and np.issubdtype(value.dtype, np.integer)
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _to_int(value: Any) -> int:
    return int(value.item() if isinstance(value, (Tensor, np.ndarray)) else value)


def class_names(dataset: Any) -> tuple[str, ...]:
    """Return ``dataset.classes`` as the datasets of torchvision have it, also of subsets; or ()."""
    for _ in range(MAX_WRAPPERS):
        names = getattr(dataset, "classes", None)
        if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
            return tuple(names)
        dataset = getattr(dataset, "dataset", None)
        if dataset is None:
            break
    return ()


def class_probabilities(output: Any) -> tuple[Tensor | None, str]:
    """Return the probability of each class (C,) from the output for one image.

    Scores become probabilities by a softmax, unless they are probabilities already.

    Returns:
        The probabilities, or None and the reason.
    """
    tensors = [leaf for leaf in leaves(output) if isinstance(leaf, Tensor)]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not floating:
        return None, "The model does not return scores."
    scores = next((each for each in floating if _is_scores(each)), None)
    if scores is None:
        shape = "×".join(map(str, floating[0].shape))
        return None, f"The model returns a tensor of shape {shape}, not one score per class."
    scores = scores.detach().flatten().float()
    if not scores.isfinite().all():
        return None, "The model's scores are not finite."
    is_normalized = bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < 1e-3
    return (scores if is_normalized else scores.softmax(0)), ""


def mean_class_probabilities(
    output: Any, class_count: int | None
) -> tuple[Tensor | None, tuple[int, ...]]:
    """Return the probability of each class (C,), averaged over the positions of a map of classes.

    Args:
        output: for one image. The maps are its first floating-point tensor (1, C, ...) of several
            channels and positions.
        class_count: the number of classes, if it is known. Then tensors with another number of
            channels are no maps of classes.

    Returns:
        The probabilities or None, and the shape of a map. Scores become probabilities by a softmax
        over the channels, unless they are probabilities already.
    """
    tensors = [leaf for leaf in leaves(output) if isinstance(leaf, Tensor)]
    found = next((each for each in tensors if _is_class_maps(each, class_count)), None)
    if found is None or not found.isfinite().all():
        return None, ()
    scores = found.detach()[0].flatten(1).float()
    is_normalized = bool((scores >= 0).all()) and bool(((scores.sum(0) - 1).abs() < 1e-3).all())
    probabilities = scores if is_normalized else scores.softmax(0)
    return probabilities.mean(1), tuple(found.shape[2:])


def _is_class_maps(tensor: Tensor, classes: int | None) -> bool:
    if not tensor.is_floating_point() or tensor.ndim < 3 or tensor.shape[0] != 1:
        return False
    channels = tensor.shape[1]
    return tensor[0, :1].numel() > 1 and channels > 1 and classes in (None, channels)


def _is_scores(tensor: Tensor) -> bool:
    """Return whether a tensor is (1, C) of several classes, perhaps with further sizes of 1."""
    return tensor.ndim >= 2 and tensor.shape[0] == 1 and tensor.numel() == tensor.shape[1] > 1


def top_classes(
    probabilities: Tensor, truth: int | None, class_names: Sequence[str]
) -> tuple[list[ClassScore], ClassScore | None]:
    """Return the most probable classes and the true one, if it is among the model's classes."""
    values = probabilities.cpu().numpy()
    order = np.argsort(-values, kind="stable")[:TOP_CLASSES]
    is_known = truth is not None and 0 <= truth < len(values)
    scores = [_score(values, index, class_names) for index in order]
    return scores, _score(values, truth, class_names) if is_known else None


def all_or_top_classes(
    probabilities: Tensor, truth: int | None, class_names: Sequence[str]
) -> tuple[list[ClassScore], ClassScore | None]:
    """Return all classes in their order if they are few, else the most probable ones first.

    Also return the true class, if it is known. A picture of the network lists these classes.
    """
    values = probabilities.cpu().numpy()
    is_few = len(values) <= FEW_CLASSES
    order = np.arange(len(values)) if is_few else np.argsort(-values, kind="stable")
    indices = order if is_few else order[:LISTED_CLASSES]
    is_known = truth is not None and 0 <= truth < len(values)
    scores = [_score(values, index, class_names) for index in indices]
    return scores, _score(values, truth, class_names) if is_known else None


def _score(values: np.ndarray, index: Any, names: Sequence[str]) -> ClassScore:
    name = names[index] if len(names) == len(values) else ""
    return ClassScore(int(index), float(values[index]), name)
