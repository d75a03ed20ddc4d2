"""The classes of all samples of a batch, as far as the batch says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revacnn_lightning.runtime.batch_images import ImagesOfBatch, find_images
from revacnn_lightning.runtime.batch_nesting import children_by_key
from revacnn_lightning.runtime.batch_samples import batch_size
from revacnn_lightning.runtime.image_class import CLASS_KEYS

__all__ = [
    "MIXED",
    "NO_CLASSES",
    "NUMBERS",
    "PIXELS",
    "SEVERAL",
    "BatchClasses",
    "find_classes",
]

MAX_DEPTH = 3  # of containers in a batch: a list of an image and a dict of labels
NO_CLASSES = "The batches hold no class of each sample, so there are no classes to compare."
SEVERAL = "The samples have several labels each, or none, so each has no single class."
MIXED = "The targets are mixtures of classes, so the samples have no single class."
NUMBERS = "The targets are numbers, not classes (regression)."
PIXELS = "The targets are maps: each pixel has a class, and an image has none."


@dataclass(frozen=True)
class BatchClasses:
    """The classes of the samples of a batch.

    Attributes:
        labels: the class of each sample, int64 (B,) on the CPU. A negative value stands for no
            class. None if the classes are unknown.
        note: the reason why the classes are unknown; "" if they are known.
        names: the names of all classes in their order; () if they are unknown.
    """

    labels: Tensor | None = None
    note: str = NO_CLASSES
    names: Sequence[str] = ()


def find_classes(batch: Any, get_images: ImagesOfBatch | None = None) -> BatchClasses:
    """Return the classes of the samples of a batch.

    They are the first integers (B,) or (B, 1) of a list or tuple, or those under a key or attribute
    named after classes, or the ones of a one-hot matrix (B, classes) there.

    Args:
        batch: tensors nested in containers (see `batch_nesting.children_by_key`).
        get_images: returns the images of a batch. None searches for them.
    """
    found = find_images(batch, get_images)
    inputs = {id(found)} if isinstance(found, Tensor) else set()
    if found is None:  # features (B, n): the first floating-point tensor
        inputs = {id(_first_floating(batch))}
    size = batch_size(batch, get_images)
    note = NO_CLASSES
    for candidate in _candidates(batch, MAX_DEPTH):
        target = _as_tensor(candidate)
        if target is None or id(candidate) in inputs or not size or len(target) != size:
            continue
        labels, reason = _read(target.detach())
        if labels is not None:
            return BatchClasses(labels.long(), "")
        note = reason if note == NO_CLASSES else note
    return BatchClasses(note=note)


def _candidates(node: Any, depth: int, *, is_target: bool = False) -> Iterator[Any]:
    """Yield what may be targets: all of a list, and of a mapping what is named after classes."""
    inner = children_by_key(node) if depth else None
    if inner is None:
        yield node
        return
    is_list = isinstance(node, (list, tuple)) and not hasattr(node, "_fields")
    if is_list and _are_numbers(node):
        yield node
        return
    named = {str(key).lower(): value for key, value in inner.items()}
    selected = inner.values() if is_list or is_target else [
        named[key] for key in CLASS_KEYS if key in named
    ]  # fmt: skip
    for value in selected:
        yield from _candidates(value, depth - 1, is_target=not is_list)


def _are_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(type(value) is int for value in values)


def _first_floating(node: Any, depth: int = MAX_DEPTH) -> Any:
    inner = children_by_key(node) if depth else None
    if inner is None:
        is_floating = isinstance(node, Tensor) and node.is_floating_point() and node.ndim > 1
        return node if is_floating else None
    found = (_first_floating(value, depth - 1) for value in inner.values())
    return next((each for each in found if each is not None), None)


def _as_tensor(value: Any) -> Tensor | None:
    """Return numbers of all samples as a tensor (B, ...); None if they are none."""
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "iufb":
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, list) and _are_numbers(value):
        return torch.tensor(value)
    is_plain = isinstance(value, Tensor) and value.ndim > 0 and value.layout == torch.strided
    return value if is_plain and not value.is_complex() else None


def _read(target: Tensor) -> tuple[Tensor | None, str]:
    """Return the classes (B,) that a target (B, ...) names, or None and the reason."""
    is_number = target.is_floating_point()
    is_flag = target.dtype == torch.bool
    if target.ndim == 1 or target[0].numel() == 1:
        if is_number or is_flag:
            return None, NUMBERS if is_number else SEVERAL
        return target.flatten().cpu(), ""
    if target.ndim > 2:
        return None, NUMBERS if is_number else PIXELS
    values = target.cpu().double()
    ones, zeros = (values == 1).sum(1), (values == 0).sum(1)
    if ((ones == 1) & (zeros == values.shape[1] - 1)).all():
        return values.argmax(1), ""
    if ((values == 0) | (values == 1)).all():
        return None, SEVERAL
    if is_number and (values >= 0).all() and ((values.sum(1) - 1).abs() < 1e-3).all():
        return None, MIXED
    return None, NUMBERS if is_number else SEVERAL
