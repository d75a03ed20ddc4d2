"""Collect what activates the inspected filters: top images and attributions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.inspections import FilterInspection
from revacnn_lightning.protocol.requests import InspectFilter
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.batch_images import Images
from revacnn_lightning.runtime.image_attribution import NO_IMAGES, FilterAttributor, input_refusal
from revacnn_lightning.runtime.image_predictions import Forward
from revacnn_lightning.runtime.input_images import DataAndViewerImages
from revacnn_lightning.runtime.inspected_input import (
    box_edges,
    encode_crop,
    encode_inspected_input,
    encode_signal_response_map,
    encode_top_image,
    input_height_and_width,
    volume_slice_at_depth,
    whole_image_box,
)
from revacnn_lightning.runtime.preferred_images import PreferredImageSynthesizer
from revacnn_lightning.runtime.time_share import RecentTimeShare
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.attribution import Attribution, load_captum_methods
from revacnn_lightning.telemetry.inspection.map_images import MIDDLE
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox
from revacnn_lightning.telemetry.inspection.responses import FilterPeakResponses
from revacnn_lightning.telemetry.inspection.top_images import MAX_IMAGES, TopRecentImages
from revacnn_lightning.telemetry.recording.host_copy import HostCopy

__all__ = ["FilterInspectionCollector"]

MAX_INSPECTED = 4  # filters at a time; the one selected longest ago is dropped first
SELECTION_SECONDS = 10.0  # how long a selection lasts unless it is renewed
INSPECTION_SECONDS = 2.0  # minimum time between two inspections of a filter
COLLECTING_SECONDS = 0.5  # the same, until all places for top images are filled
OVERHEAD = "filters"  # as the recorder knows it
MAX_TIME_SHARE = 0.01  # of the training time; if inspections take more, they are sent less often

FilterKey = tuple[str, int]  # layer, index of the filter


@dataclass
class _InspectedFilter:
    """A filter that a viewer has selected; times are in seconds."""

    expires_at: float
    image_index: int | None = None  # of the chosen image; None: first image of the batch
    pinned_image: Tensor | None = None
    top_images: TopRecentImages = field(default_factory=TopRecentImages)
    note: str = ""  # why there are no top images
    due_at: float = -math.inf
    duration: float = 0.0  # of the last inspection
    depth: float = MIDDLE  # of the slice that is sent of volumes


class FilterInspectionCollector:
    """Collects top images and attributions of the filters that viewers inspect.

    Args:
        recorder: observes the responses of the filters.
        model: the network.
        images: the images that viewers can choose.
        forward: runs the model on a batch of one image; None if this is not possible.
        refusal: why the model must not be run between two batches; "" if it may be.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        model: nn.Module,
        images: DataAndViewerImages,
        forward: Forward | None,
        refusal: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._recorder = recorder
        self._images = images
        attributor = self._attributor = FilterAttributor(model, forward, refusal)
        self._preferred = PreferredImageSynthesizer(recorder, model, forward, attributor, clock)
        self._clock = clock
        self._inspected: dict[FilterKey, _InspectedFilter] = {}
        self._host_copy: HostCopy[None] = HostCopy()
        self._time_share = RecentTimeShare(clock)

    def select(self, request: InspectFilter) -> None:
        """Inspect a filter for the next few seconds.

        Raises:
            EditRefusedError: there is no such filter or image.
        """
        self._check(request)
        load_captum_methods()  # an import, which would otherwise delay a training batch
        key = request.layer, request.filter
        inspected = self._inspected.pop(key, None) or _InspectedFilter(0.0)
        index = request.image_index
        if index != inspected.image_index:
            inspected.pinned_image = None if index is None else self._images.image(index)
            inspected.image_index, inspected.due_at = index, -math.inf
        if request.depth != inspected.depth:
            inspected.depth, inspected.due_at = request.depth, -math.inf
        inspected.expires_at = self._clock() + SELECTION_SECONDS
        self._inspected[key] = inspected
        if self._preferred.start_search(key, request.ascent):
            inspected.due_at = -math.inf
        while len(self._inspected) > MAX_INSPECTED:
            del self._inspected[next(iter(self._inspected))]
        self._preferred.keep_only(self._inspected)
        self._recorder.responses.select(self._inspected)

    def collect(self, context: BatchContext) -> list[FilterInspection]:
        """Add the responses of a batch; return the inspections that are due."""
        if not self._inspected:
            return []
        began = self._clock()
        self._drop_expired()
        if context.is_paused:
            self._preferred.advance(context)
            return self._inspect_due(context)
        self._add_responses(context)
        inspections = self._inspect_due(context)
        self._preferred.advance(context)  # now that the layer has been traced
        share = self._time_share.add(self._clock() - began)
        if self._inspected:  # so that the recorder samples less
            self._recorder.external_overheads[OVERHEAD] = share
        return inspections

    def reset(self) -> None:
        """Drop all selections: the indices of filters may have changed."""
        self._inspected.clear()
        self._attributor.reset()
        self._preferred.keep_only(())
        self._host_copy.clear()
        self._recorder.responses.select(())
        self._recorder.external_overheads.pop(OVERHEAD, None)

    def _check(self, request: InspectFilter) -> None:
        widths = dict(zip(self._recorder.layers, self._recorder.widths, strict=True))
        if request.layer not in widths:
            raise EditRefusedError(
                f"there is no watched layer {request.layer} in the network (anymore)"
            )
        if not 0 <= request.filter < widths[request.layer]:
            raise EditRefusedError(
                f"{request.layer} has no filter {request.filter}; it has the filters 0 to "
                f"{widths[request.layer] - 1}"
            )

    def _inspect_due(self, context: BatchContext) -> list[FilterInspection]:
        return [
            self._inspect(key, inspected, context)
            for key, inspected in self._inspected.items()
            if self._clock() >= inspected.due_at
        ]

    def _drop_expired(self) -> None:
        now = self._clock()
        expired = [key for key, one in self._inspected.items() if one.expires_at <= now]
        for key in expired:
            del self._inspected[key]
        if expired:
            self._recorder.responses.select(self._inspected)
            self._preferred.keep_only(self._inspected)
        if not self._inspected:
            self.reset()

    # ------------------------------------------------------------------ top images

    def _add_responses(self, context: BatchContext) -> None:
        """Copy the responses of the batch to the host, without waiting for the copies."""
        images, first = context.images, _first_input(context)
        for key, responses in self._recorder.responses.pop_responses().items():
            inspected = self._inspected.get(key)
            if inspected is None:
                continue
            inspected.note = _why_no_top_images(images, first, responses)
            if images is not None and not inspected.note:
                self._host_copy.send(
                    responses.peaks,
                    self._make_receiver(key, context.step, responses.map_size, images),
                )
        note = input_refusal(first)
        if note:  # known before the first responses are sampled
            for inspected in self._inspected.values():
                inspected.note = note

    def _make_receiver(
        self, key: FilterKey, step: int, map_size: tuple[int, int], images: Images
    ) -> Callable[[np.ndarray], None]:
        """Return a function that adds responses to the top images once they are on the host."""

        def box(index: int, position: int) -> PixelBox:
            image = images[index]
            traced = self._attributor.trace_layer(key[0], image)
            if isinstance(traced, str) or traced.map_size != map_size:
                return whole_image_box(image)
            return traced.box(*divmod(position, map_size[1]))

        def receive(responses: np.ndarray) -> None:
            inspected = self._inspected.get(key)
            if inspected is not None:
                inspected.top_images.add(step, responses, images, box)

        return receive

    # ------------------------------------------------------------------ attribution

    def _inspect(
        self, key: FilterKey, inspected: _InspectedFilter, context: BatchContext
    ) -> FilterInspection:
        began = self._clock()
        image = inspected.pinned_image
        if image is None:
            image = _first_input(context)
        message = self._build_message(key, inspected, context, image)
        last_duration, inspected.duration = inspected.duration, self._clock() - began
        # The shorter of two: a single one may be delayed by an import or another process.
        duration = min(last_duration, inspected.duration)
        is_searching = self._preferred.is_searching(key)
        is_complete = len(message.top_images) == MAX_IMAGES and not is_searching
        interval = INSPECTION_SECONDS if is_complete else COLLECTING_SECONDS
        affordable = duration * len(self._inspected) / MAX_TIME_SHARE
        inspected.due_at = self._clock() + max(interval, affordable)
        return message

    def _build_message(
        self,
        key: FilterKey,
        inspected: _InspectedFilter,
        context: BatchContext,
        image: Tensor | None,
    ) -> FilterInspection:
        layer, filter = key
        depth = inspected.depth
        result = self._attributor.attribute(layer, filter, image)
        found = result if isinstance(result, Attribution) else None
        box = None if found is None else found.box
        guided = None if found is None else found.guided_backpropagation
        response_map = None if found is None else found.response_map
        volume = volume_slice_at_depth(() if image is None else image.shape, box, depth)
        field = self._attributor.receptive_fields(layer, image)
        ranked = inspected.top_images.ranked(context.step)
        preferred, preferred_refusal = self._preferred.describe(key, depth)
        return FilterInspection(
            run=context.run,
            version=context.version,
            step=context.step,
            layer=layer,
            filter=filter,
            image=encode_inspected_input(image, volume),
            deconvolution=encode_crop(None if found is None else found.deconvolution, depth),
            guided_backpropagation=encode_crop(guided, depth),
            top_images=[encode_top_image(each, depth) for each in ranked],
            top_images_note=inspected.note or self._why_unobserved(layer),
            receptive_field=(0, 0) if field is None else field.max_size,
            response=None if found is None else found.response,
            box=(0, 0, 0, 0) if box is None else box_edges(box),
            image_size=input_height_and_width(image),
            image_index=inspected.image_index,
            attribution_refusal=result if isinstance(result, str) else result.refusal,
            preferred=preferred,
            preferred_refusal=preferred_refusal,
            response_map=encode_signal_response_map(image, response_map),
            volume=volume,
            receptive_field_depth=1 if field is None else field.max_depth,
            depth=depth,
        )

    def _why_unobserved(self, layer: str) -> str:
        if self._recorder.observed.get(layer, True):
            return ""
        return "the layer's activation maps cannot be observed: no hook receives them"


def _first_input(context: BatchContext) -> Tensor | None:
    """Return the first image, signal or volume of a batch, or what else its first sample is."""
    return context.batch.get_input() if context.images is None else context.images[0]


def _why_no_top_images(
    images: Images | None, first: Tensor | None, peaks: FilterPeakResponses
) -> str:
    """Say why the images of a batch cannot be ranked by these responses; "" if they can."""
    if images is None or input_refusal(first):
        return input_refusal(first) or NO_IMAGES
    maps = peaks.peaks.shape[1]
    if maps == len(images):
        return ""
    return f"cannot match {maps} activation maps to {len(images)} images"
