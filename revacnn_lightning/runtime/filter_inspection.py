"""What a filter looks for: from what excites it to the `FilterInspection` a viewer is sent."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages
from revacnn_lightning.protocol.requests import InspectFilter
from revacnn_lightning.runtime.layer_details import NOTHING, Forward, Images, shown_image
from revacnn_lightning.telemetry.inspection.attribution import (
    Attribution,
    TracedActivation,
    attribute,
    load_captum_methods,
    trace_activation,
)
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox
from revacnn_lightning.telemetry.inspection.responses import Responses
from revacnn_lightning.telemetry.inspection.top_images import MAX_IMAGES, TopImages
from revacnn_lightning.telemetry.recording.host_copy import HostCopy
from revacnn_lightning.telemetry.recording.recorder import Recorder

__all__ = ["InspectionCollector"]

log = logging.getLogger(__name__)

MOST_INSPECTED = 4  # filters at a time; the one asked for longest ago gives way
INTEREST_SECONDS = 10.0  # that interest lasts without being renewed
INSPECTION_SECONDS = 2.0  # between two inspections of a filter, at least
GATHERING_SECONDS = 0.5  # the same, until there are as many images as there are places for
SHARE = 0.01  # of the time of the training that all inspections may take; then they come less often
MEMORY_SECONDS = 20.0  # over which what they take is averaged
MOST_SIZES = 16  # sizes of images of which it is remembered what a layer's units see

NO_FORWARD = (
    "the module's forward does not take an image alone; with ReVACNN(forward=...) it could be told"
)

NO_IMAGES = "the batch holds no images, (B, channels, H, W), that could be shown"

Key = tuple[str, int]  # layer, index of the filter


@dataclass
class _Inspected:
    """A filter that somebody looks at."""

    until: float
    index: int | None = None  # of the validation image in which it is looked at
    pinned: Tensor | None = None
    top_images: TopImages = field(default_factory=TopImages)
    note: str = ""  # on the finds
    due: float = -math.inf
    took: float = 0.0  # seconds, the last time


class InspectionCollector:
    """The filters that viewers inspect.

    Args:
        images: gives an image of the validation data by its index.
        forward: takes a batch of one image through the model; None: it cannot be done.
        cannot: why the model must not be run in between; "" if it may.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        model: nn.Module,
        images: Images,
        forward: Forward | None,
        cannot: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = recorder
        self._model = model
        self._images = images
        self._forward = forward
        self._cannot = cannot
        self._clock = clock
        self._inspected: dict[Key, _Inspected] = {}
        self._examined: dict[tuple[object, ...], TracedActivation | str] = {}
        self._transfer: HostCopy[None] = HostCopy()
        self._took = 0.0  # seconds, on average since `_counted`
        self._counted = clock()

    def inspect(self, request: InspectFilter) -> None:
        """A viewer looks at a filter, or goes on looking.

        Raises:
            Refused: there is no such filter or image.
        """
        widths = dict(zip(self._recorder.layers, self._recorder.widths, strict=True))
        if request.layer not in widths:
            raise EditRefusedError(f"there is no convolution {request.layer} (any more)")
        if not 0 <= request.filter < widths[request.layer]:
            raise EditRefusedError(
                f"{request.layer} has the filters 0 to {widths[request.layer] - 1}"
            )
        load_captum_methods()  # loaded now: that takes its time once, and is no cost of a batch
        key = request.layer, request.filter
        known = self._inspected.pop(key, None) or _Inspected(0.0)
        if request.image_index != known.index:
            known.pinned = (
                None if request.image_index is None else self._images(request.image_index)
            )
            known.index, known.due = request.image_index, -math.inf
        known.until = self._clock() + INTEREST_SECONDS
        self._inspected[key] = known
        while len(self._inspected) > MOST_INSPECTED:
            del self._inspected[next(iter(self._inspected))]
        self._recorder.responses.select(self._inspected)

    def forget(self) -> None:
        """The network is another one: what was found is not true of it."""
        self._inspected.clear()
        self._examined.clear()
        self._transfer.clear()
        self._recorder.responses.select(())
        self._recorder.external_overhead = 0.0

    def read(
        self, *, run: str, version: int, step: int, images: Callable[[], Tensor | None]
    ) -> list[messages.FilterInspection]:
        """Take note of a batch of ``images``, (B, channels, H, W); the inspections that are due."""
        if not self._inspected:
            return []
        began = time.perf_counter()
        self._expire()
        batch = _batch(images())
        self._take_responses(batch, step)
        sent = self._due(run, version, step, batch)
        self._account(time.perf_counter() - began)
        return sent

    def read_between(
        self, *, run: str, version: int, step: int, images: Callable[[], Tensor | None]
    ) -> list[messages.FilterInspection]:
        """While no batch is trained: the inspections that are due, with what was found so far."""
        if not self._inspected:
            return []
        self._expire()
        return self._due(run, version, step, _batch(images()))

    def _due(
        self, run: str, version: int, step: int, batch: Tensor | None
    ) -> list[messages.FilterInspection]:
        return [
            self._inspection(key, one, run, version, step, batch)
            for key, one in self._inspected.items()
            if self._clock() >= one.due
        ]

    def _expire(self) -> None:
        now = self._clock()
        gone = [key for key, one in self._inspected.items() if one.until <= now]
        for key in gone:
            del self._inspected[key]
        if gone:
            self._recorder.responses.select(self._inspected)
        if not self._inspected:
            self.forget()

    def _account(self, seconds: float) -> None:
        """Have the recorder know what we cost, and keep to our share."""
        now = self._clock()
        passed, self._counted = now - self._counted, now
        self._took = self._took * math.exp(-passed / MEMORY_SECONDS) + seconds
        if self._inspected:
            self._recorder.external_overhead = min(1.0, self._took / MEMORY_SECONDS)

    # ------------------------------------------------------------------ training images

    def _take_responses(self, batch: Tensor | None, step: int) -> None:
        """Copy what was seen to the host; what has arrived there is taken note of."""
        for key, responses in self._recorder.responses.pop_responses().items():
            one = self._inspected.get(key)
            if one is None:
                continue
            one.note = _why_none(batch, responses)
            if batch is not None and not one.note:
                self._transfer.send(
                    responses.peaks, self._adding(key, step, responses.map_size, batch)
                )
        if batch is None:
            for one in self._inspected.values():
                one.note = _why_none(None, None)

    def _adding(
        self, key: Key, step: int, size: tuple[int, int], batch: Tensor
    ) -> Callable[[np.ndarray], None]:
        """Takes note of responses, once they are on the host."""

        def box(place: int) -> PixelBox:
            examined = self._examine(key[0], batch[0])
            if isinstance(examined, str) or examined.map_size != size:
                return PixelBox(0, 0, *batch.shape[2:])
            return examined.receptive_field.box(*divmod(place, size[1]))

        def add(numbers: np.ndarray) -> None:
            one = self._inspected.get(key)
            if one is not None:
                one.top_images.add(step, numbers, batch, box)

        return add

    # ------------------------------------------------------------------ the shown image

    def _inspection(
        self,
        key: Key,
        one: _Inspected,
        run: str,
        version: int,
        step: int,
        batch: Tensor | None,
    ) -> messages.FilterInspection:
        began = time.perf_counter()
        shown = one.pinned
        if shown is None and batch is not None:
            shown = batch[0]
        found = self._attribution(key, shown)
        known = found if isinstance(found, Attribution) else None
        sent = messages.FilterInspection(
            run=run,
            version=version,
            step=step,
            layer=key[0],
            filter=key[1],
            image=NOTHING if shown is None else shown_image(shown),
            deconvolution=_half(None if known is None else known.deconvolution),
            guided_backpropagation=_half(None if known is None else known.guided_backpropagation),
            top_images=[
                messages.TopImage(find.crop, find.box, find.image_size, find.response, find.step)
                for find in one.top_images.ranked(step)
            ],
            top_images_note=one.note or self._why_unseen(key[0]),
            receptive_field=self._sees(key[0], shown),
            response=None if known is None else known.response,
            box=(0, 0, 0, 0) if known is None else known.box,
            image_size=(0, 0) if shown is None else (shown.shape[1], shown.shape[2]),
            image_index=one.index,
            attribution_refusal=found if isinstance(found, str) else found.refusal,
        )
        took, one.took = one.took, time.perf_counter() - began
        took = min(took, one.took)  # the first of all loads captum; another may be held up
        wait = INSPECTION_SECONDS if len(sent.top_images) == MAX_IMAGES else GATHERING_SECONDS
        one.due = self._clock() + max(wait, took * len(self._inspected) / SHARE)
        return sent

    def _attribution(self, key: Key, image: Tensor | None) -> Attribution | str:
        """What of the image excites the filter, or why that cannot be told."""
        if image is None:
            return NO_IMAGES
        examined = self._examine(key[0], image)
        if isinstance(examined, str) or self._forward is None:
            return examined if isinstance(examined, str) else NO_FORWARD
        try:
            return attribute(self._model, self._forward, examined, key[1], image)
        except Exception as error:  # the user's code, or captum's: it costs the pictures, no more
            log.info("What %s looks for cannot be told", key, exc_info=True)
            return f"the forward of one image failed ({type(error).__name__}: {error})"

    def _examine(self, layer: str, image: Tensor) -> TracedActivation | str:
        """How the pixels of images of this size reach the layer, or why that is not known."""
        key = layer, tuple(image.shape)
        if key not in self._examined:
            if len(self._examined) >= MOST_SIZES:
                self._examined.clear()
            self._examined[key] = self._examine_now(layer, image)
        return self._examined[key]

    def _examine_now(self, layer: str, image: Tensor) -> TracedActivation | str:
        if self._cannot or self._forward is None:
            return self._cannot or NO_FORWARD
        if any("_orig_mod" in module._modules for module in self._model.modules()):
            return "part of the network is compiled, and must not be run in another way meanwhile"
        conv: Any = self._model.get_submodule(layer)
        try:
            examined = trace_activation(self._model, self._forward, conv, image)
        except Exception as error:  # of the user's code: it costs the pictures, no more
            log.info("What %s sees cannot be told", layer, exc_info=True)
            return f"the forward of one image failed ({type(error).__name__}: {error})"
        return examined or "the forward of one image does not reach this layer"

    def _why_unseen(self, layer: str) -> str:
        hidden = not self._recorder.observed.get(layer, True)
        return "the layer's maps do not reach us: it runs in a compiled region" if hidden else ""

    def _sees(self, layer: str, image: Tensor | None) -> tuple[int, int]:
        """Height and width of the layer's receptive field; (0, 0) if it is not known."""
        examined = "" if image is None else self._examine(layer, image)
        return (0, 0) if isinstance(examined, str) else examined.receptive_field.size


def _batch(images: Tensor | None) -> Tensor | None:
    """The images if they are some, (B, channels, H, W)."""
    return images if images is not None and images.ndim == 4 and len(images) else None


def _why_none(batch: Tensor | None, responses: Responses | None) -> str:
    """Why there are no training images to be shown; "" if there are."""
    if batch is None:
        return NO_IMAGES
    maps = len(batch) if responses is None else responses.peaks.shape[1]
    if maps == len(batch):
        return ""
    return f"the layer makes {maps} maps of a batch of {len(batch)} images: whose are whose?"


def _half(values: Tensor | None) -> np.ndarray:
    return NOTHING if values is None else normalized_half(values)
