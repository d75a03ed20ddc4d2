"""Collects how filters respond to classes: `ClassLens` and `ClassAnswers` messages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace
from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import InspectClass, InspectClasses
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.batch_classes import BatchClasses
from revacnn_lightning.runtime.class_messages import (
    make_class_answers,
    make_class_lens,
    make_empty_class_lens,
)
from revacnn_lightning.runtime.class_sums import ClassSums
from revacnn_lightning.runtime.time_share import RecentTimeShare
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.pooled_maps import PooledMaps

__all__ = ["MAX_CLASSES", "ClassResponseCollector"]

SELECTION_SECONDS = 10.0  # how long a selection lasts unless it is renewed
MESSAGE_SECONDS = 1.0  # minimum time between two messages
MAX_LAYERS = 4  # at a time; the one selected longest ago is dropped first
MAX_CLASSES = 1000  # that sums are kept of
TIME_SHARE, BURST_SECONDS = 0.01, 0.25  # of the time, for messages
IMAGES_PER_CLASS = 50  # without names, after which a class that has not occurred is said not to
OVERHEAD = "classes"  # as the recorder knows it

TOO_MANY = f"There are more than {MAX_CLASSES} classes, and sums are kept of at most so many."
UNOBSERVED = "The layer's activation maps cannot be observed: no hook receives them."
NO_CLASS = "There is no class {}: the data has {} classes, 0 to {}."
NOT_SEEN = "There was no image of class {} among {} images; the largest class so far is {}."
NO_MATCH = "Cannot match {} activation maps to {} labels."

ClassMessage = ClassLens | ClassAnswers | Confusion


class ClassResponseCollector:
    """Adds up pooled activation maps and their gradients per class, while a viewer shows classes.

    An opened layer has a sum for each class. While a viewer shows how all filters respond to one
    class, each other layer has two sums: over the images of this class, and over all images. The
    recorder pools the maps on as many batches as ``max_overhead`` allows.

    Args:
        recorder: pools the maps of the layers.
        class_names: the class names that the user has given; () uses those of the data.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        class_names: Sequence[str] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._recorder = recorder
        self._class_names = tuple(class_names)
        self._clock = clock
        self._time_share = RecentTimeShare(clock)
        self._budget = TokenBucket(TIME_SHARE, BURST_SECONDS, clock)
        self._layers: dict[str, float] = {}  # when each selection expires; the newest last
        self._due_at: dict[str, float] = {}  # when the next message about a layer is due
        self._class: int | None = None
        self._class_expires_at = self._class_due_at = -math.inf
        self._sent: dict[str, ClassLens] = {}
        self._answers: ClassAnswers | None = None
        self._is_resent: set[str] = set()  # while paused
        self._confusion: Confusion | None = None
        self._is_confusion_due = False
        self._names: Sequence[str] = self._class_names
        self._class_count = self._images_seen = 0  # one more than the largest class so far
        self.reset()

    def select(self, request: InspectClasses | InspectClass) -> None:
        """Collect what the request selects for the next few seconds.

        Raises:
            EditRefusedError: there is no such layer.
        """
        now = self._clock()
        if isinstance(request, InspectClass):
            if request.class_index != self._class:
                self._class = request.class_index
                self._of_class.clear()
                self._answers, self._class_due_at = None, -math.inf
            self._class_expires_at = now + SELECTION_SECONDS
        else:
            if request.layer not in self._recorder.layers:
                raise EditRefusedError(
                    f"there is no watched layer {request.layer} in the network (anymore)"
                )
            self._is_confusion_due |= request.layer not in self._layers
            self._layers.pop(request.layer, None)
            self._layers[request.layer] = now + SELECTION_SECONDS
            self._is_resent.discard(request.layer)
            while len(self._layers) > MAX_LAYERS:
                self._close(next(iter(self._layers)))
        self._select_maps()

    def reset(self) -> None:
        """Discard all sums: the filters may be others."""
        self._of_layer: dict[str, ClassSums] = {}
        self._of_class: dict[str, ClassSums] = {}
        self._notes: dict[str, str] = {}
        self._sent, self._answers = {}, None
        for layer in self._layers.keys() - set(self._recorder.layers):
            self._close(layer)
        self._select_maps()

    @property
    def is_active(self) -> bool:
        """Whether a viewer shows classes."""
        self._drop_expired()
        return bool(self._layers) or self._class is not None

    def add_confusion(self, confusion: Confusion) -> None:
        """Send the newest confusion, and again to viewers that open a layer later."""
        self._confusion, self._is_confusion_due = confusion, True

    def collect(self, context: BatchContext) -> list[ClassMessage]:
        """Add the maps of a batch; return the messages that are due."""
        if not self._layers and self._class is None:
            return []
        began = self._clock()
        self._drop_expired()
        if context.is_paused:
            return self._resend()
        pooled = self._recorder.pop_pooled_maps()
        if pooled:
            self._add(pooled, context.batch.get_classes())
        messages = [] if self._budget.is_empty else self._due_messages(context)
        seconds = self._clock() - began
        self._budget.spend(seconds)
        if self._layers or self._class is not None:
            self._recorder.external_overheads[OVERHEAD] = self._time_share.add(seconds)
        return messages

    # ---------------------------------------------------------------- what is selected

    def _select_maps(self) -> None:
        """Let the recorder pool what is selected; gradients of opened layers only."""
        others = [] if self._class is None else self._recorder.layers
        opened = dict.fromkeys(self._layers, True)
        self._recorder.pooled_maps.select({**dict.fromkeys(others, False), **opened})

    def _drop_expired(self) -> None:
        now = self._clock()
        expired = [layer for layer, at in self._layers.items() if at <= now]
        for layer in expired:
            self._close(layer)
        is_class_expired = self._class is not None and self._class_expires_at <= now
        if is_class_expired:
            self._class, self._of_class, self._answers = None, {}, None
        if expired or is_class_expired:
            self._select_maps()
        if not self._layers and self._class is None:
            self._recorder.external_overheads.pop(OVERHEAD, None)

    def _close(self, layer: str) -> None:
        for kept in (self._layers, self._of_layer, self._due_at, self._sent, self._notes):
            kept.pop(layer, None)

    # ---------------------------------------------------------------- sums

    def _add(self, pooled: dict[str, PooledMaps], classes: BatchClasses) -> None:
        self._names = self._class_names or tuple(classes.names)
        labels = classes.labels
        if labels is not None and len(labels):
            self._class_count = max(self._class_count, int(labels.max()) + 1)
            self._images_seen += len(labels)
        for layer, maps in pooled.items():
            note = classes.note
            if labels is not None:
                note = _why_not(maps, labels)
            self._notes[layer] = note
            if labels is None or note:
                continue
            if layer in self._layers:
                _sums_of(self._of_layer, layer, maps).add(labels, maps)
            if self._class is not None:
                is_other = (labels != self._class).long().masked_fill(labels < 0, -1)
                _sums_of(self._of_class, layer, maps).add(
                    is_other, PooledMaps(maps.mean_activations)
                )

    # ---------------------------------------------------------------- messages

    def _due_messages(self, context: BatchContext) -> list[ClassMessage]:
        now = self._clock()
        messages = self._due_confusion()
        for layer in self._layers:
            if now >= self._due_at.get(layer, -math.inf) and self._is_known(layer):
                self._due_at[layer] = now + MESSAGE_SECONDS
                self._sent[layer] = self._lens_of(layer, context)
                messages.append(self._sent[layer])
        has_answers = bool(self._of_class) or any(self._notes.values())
        if self._class is not None and now >= self._class_due_at and has_answers:
            self._class_due_at = now + MESSAGE_SECONDS
            self._answers = self._answers_to(self._class, context)
            messages.append(self._answers)
        return messages

    def _is_known(self, layer: str) -> bool:
        """Return whether there is anything to say about a layer."""
        return layer in self._notes or not self._recorder.observed.get(layer, True)

    def _due_confusion(self) -> list[ClassMessage]:
        is_due = self._is_confusion_due and self._confusion is not None
        self._is_confusion_due = False
        return [self._confusion] if is_due and self._confusion is not None else []

    def _resend(self) -> list[ClassMessage]:
        """Return what was sent last of layers that were selected in the pause."""
        new = [self._sent[layer] for layer in self._layers.keys() & self._sent.keys()
               if layer not in self._is_resent]  # fmt: skip
        self._is_resent |= {message.layer for message in new}
        return [*new, *self._due_confusion()]

    def _lens_of(self, layer: str, context: BatchContext) -> ClassLens:
        sums = self._of_layer.get(layer)
        if sums is None:
            note = self._notes.get(layer, UNOBSERVED)
            return make_empty_class_lens(layer, self._widths()[layer], note, context)
        return make_class_lens(layer, sums, self._names, context)

    def _answers_to(self, class_index: int, context: BatchContext) -> ClassAnswers:
        layers = self._widths()
        answers = make_class_answers(class_index, layers, self._of_class, self._names, context)
        known = [note for note in self._notes.values() if note]
        note = "" if self._of_class else next(iter(known), "")
        note = note or self._why_no_class(class_index)
        return replace(answers, classes=len(self._names) or self._class_count, note=note)

    def _why_no_class(self, class_index: int) -> str:
        """Return why no image of a class will come, as far as that is known; "" if one may."""
        classes = max(len(self._names), self._class_count)
        if class_index < classes:
            return ""
        if self._names:
            return NO_CLASS.format(class_index, classes, classes - 1)
        is_certain = self._images_seen >= IMAGES_PER_CLASS * max(classes, 1)
        return NOT_SEEN.format(class_index, self._images_seen, classes - 1) if is_certain else ""

    def _widths(self) -> dict[str, int]:
        return dict(zip(self._recorder.layers, self._recorder.widths, strict=True))


def _sums_of(kept: dict[str, ClassSums], layer: str, maps: PooledMaps) -> ClassSums:
    """Return the sums of a layer; new ones if the layer has another width by now."""
    filters, device = maps.mean_activations.shape[1], maps.mean_activations.device
    known = kept.get(layer)
    if known is None or known.filters != filters:
        known = kept[layer] = ClassSums(filters, device)
    return known


def _why_not(maps: PooledMaps, labels: Tensor) -> str:
    """Return why the maps of a batch cannot be added per class; "" if they can."""
    if len(maps.mean_activations) != len(labels):
        return NO_MATCH.format(len(maps.mean_activations), len(labels))
    return TOO_MANY if len(labels) and int(labels.max()) >= MAX_CLASSES else ""
