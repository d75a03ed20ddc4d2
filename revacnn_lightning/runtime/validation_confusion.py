"""Counts which classes the network takes for which, while the training validates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.protocol.class_lens import Confusion
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.batch_classes import BatchClasses
from revacnn_lightning.runtime.batch_nesting import leaves

__all__ = ["COMPILED", "MAX_CLASSES", "NO_SCORES", "TOO_MANY", "ConfusionRecorder"]

log = logging.getLogger(__name__)

MAX_CLASSES = 128
NO_SCORES = "No module returns one score per class during the validation."
COMPILED = "Part of the network is compiled, so its scores are not observed."
TOO_MANY = f"There are more than {MAX_CLASSES} classes."


class ConfusionRecorder:
    """Counts the classes that validation batches predict, without a forward of its own.

    The scores of a batch are the last floating-point tensor (images, classes) that a module with
    parameters has returned. A hook on all modules observes them, and is removed after each batch.

    Args:
        model: the network.
        is_wanted: returns whether a viewer shows classes.
        class_names: the class names that the user has given; () uses those of the data.
    """

    def __init__(
        self, model: nn.Module, is_wanted: Callable[[], bool], class_names: Sequence[str] = ()
    ) -> None:
        self._model = model
        self._is_wanted = is_wanted
        self._class_names = tuple(class_names)
        self._handle: RemovableHandle | None = None
        self._modules: set[nn.Module] = set()
        self._classes = BatchClasses()
        self._predicted: Tensor | None = None  # (B,)
        self._scored_classes = 0
        self._reset()

    def _reset(self) -> None:
        self._counts = np.zeros((0, 0), np.int64)
        self._note = ""
        self._names: Sequence[str] = self._class_names
        self._has_observed = False

    # ---------------------------------------------------------------- a batch

    def begin_batch(self, get_classes: Callable[[], BatchClasses]) -> None:
        """Observe the modules until `end_batch`, if a viewer shows classes."""
        self.close()
        if not self._is_wanted():
            return
        self._has_observed = True
        if any("_orig_mod" in module._modules for module in self._model.modules()):
            self._note = COMPILED
            return
        self._classes = get_classes()
        self._names = self._class_names or tuple(self._classes.names)
        if self._classes.labels is None:
            self._note = self._classes.note
            return
        self._modules = {
            module
            for module in self._model.modules()
            if next(module.parameters(), None) is not None
        }
        self._handle = register_module_forward_hook(self._on_forward)

    def _on_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        if module not in self._modules:
            return
        try:
            self._observe(output)
        except Exception:  # of the user's own type of output
            log.info("Cannot read the scores of a module", exc_info=True)

    @torch.no_grad()
    def _observe(self, output: Any) -> None:
        labels = self._classes.labels
        assert labels is not None
        tensors = (leaf for leaf in leaves(output) if isinstance(leaf, Tensor))
        floating = next((each for each in tensors if each.is_floating_point()), None)
        if floating is None or floating.ndim != 2 or len(floating) != len(labels):
            return
        if floating.shape[1] >= 2 and floating.shape[1] > int(labels.max()):
            self._predicted = floating.argmax(1)
            self._scored_classes = floating.shape[1]

    def end_batch(self) -> None:
        """Count the predictions of the batch."""
        is_observed = self._handle is not None
        self._remove_hook()
        labels, predicted = self._classes.labels, self._predicted
        self._predicted, self._classes = None, BatchClasses()
        if not is_observed or labels is None:
            return
        if predicted is None:
            self._note = self._note or NO_SCORES
            return
        if self._scored_classes > MAX_CLASSES:
            self._note = TOO_MANY
            return
        self._count(labels.numpy(), predicted.cpu().numpy(), self._scored_classes)

    def _count(self, labels: np.ndarray, predicted: np.ndarray, classes: int) -> None:
        if self._counts.shape[0] != classes:
            self._counts = np.zeros((classes, classes), np.int64)
        known = labels >= 0
        np.add.at(self._counts, (labels[known], predicted[known]), 1)

    # ---------------------------------------------------------------- the end

    def finish(self, context: BatchContext) -> Confusion | None:
        """Return what was counted since the last call; None if nobody wanted it."""
        self.close()
        if not self._has_observed:
            return None
        classes = len(self._counts)
        names = list(self._names) if len(self._names) == classes else [""] * classes
        message = Confusion(
            context.run,
            context.version,
            context.step,
            self._counts.astype(np.float32),
            names,
            self._note if not classes else "",
        )
        self._reset()
        return message

    def close(self) -> None:
        """Stop to observe, for example because the validation has failed."""
        self._remove_hook()
        self._predicted, self._classes, self._modules = None, BatchClasses(), set()

    def _remove_hook(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
