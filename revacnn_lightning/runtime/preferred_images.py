"""The images that inspected filters respond to most, searched a few steps per batch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.protocol.inspections import PreferredImage
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.image_attribution import NO_IMAGES, FilterAttributor, input_refusal
from revacnn_lightning.runtime.image_predictions import Forward
from revacnn_lightning.runtime.inspected_input import box_edges, encode_crop, volume_slice_at_depth
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.conv import device_of, filter_rows
from revacnn_lightning.telemetry.inspection.image_ascent import ImageAscent, PixelStatistics

__all__ = ["PreferredImageSynthesizer"]

log = logging.getLogger(__name__)

TOTAL_STEPS = 150  # after which an image hardly changes, while the weights do not
REFRESH_SECONDS = 2.0  # between the steps after that, which follow the weights
MAX_TIME_SHARE = 0.02  # of the training time
BUDGET_SHARE = 0.5  # of `max_overhead`, if that is less
CALL_SECONDS = 0.02  # between two batches, if a step takes less
MAX_STEPS_PER_CALL = 8
MAX_CHANGE = 0.5  # of the filter's weights, relative to their norm, before the search starts again
STATISTICS_IMAGES = 64  # of a batch
NO_GRADIENT = "the response of this filter does not depend on the image"

FilterKey = tuple[str, int]  # layer, index of the filter


@dataclass
class _Search:
    """The search of the image of one filter."""

    number: int  # as requested; a larger one starts the search again
    ascent: ImageAscent | None = None
    weight: Tensor | None = None  # of the filter when the search began
    refusal: str = ""
    due_at: float = -math.inf


class PreferredImageSynthesizer:
    """Computes images that filters respond to most, within a share of the training time.

    Args:
        recorder: knows the weights, and what everything may cost.
        model: the network.
        forward: runs it on a batch of one input; None if this is not possible.
        attributor: traces the layers.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        model: nn.Module,
        forward: Forward | None,
        attributor: FilterAttributor,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model, self._forward, self._attributor = model, forward, attributor
        self._recorder = recorder
        limit = recorder.max_overhead
        self._time_share = min(MAX_TIME_SHARE, math.inf if limit is None else limit * BUDGET_SHARE)
        self._clock = clock
        self._searches: dict[FilterKey, _Search] = {}
        self._due_at = -math.inf  # when there is time for further steps
        self._step_seconds = 0.0  # of the last ones

    def start_search(self, key: FilterKey, search_number: int) -> bool:
        """Search the image of a filter, unless the number is 0; a larger one starts again.

        Returns:
            Whether a search starts.
        """
        known = self._searches.get(key)
        if search_number <= (0 if known is None else known.number):
            return False
        self._searches[key] = _Search(search_number)
        return True

    def keep_only(self, keys: Collection[FilterKey]) -> None:
        """End the searches of all other filters."""
        kept = set(keys)
        self._searches = {key: one for key, one in self._searches.items() if key in kept}

    def advance(self, context: BatchContext) -> None:
        """Make a few steps, if there is time; a paused run has time."""
        now = self._clock()
        if now < self._due_at and not context.is_paused:
            return
        ready = [
            key for key, one in self._searches.items() if not one.refusal and one.due_at <= now
        ]
        if not ready:
            return
        key = min(ready, key=lambda each: self._steps(self._searches[each]))
        began = self._clock()
        self._advance(key, self._searches[key], context)
        seconds = self._clock() - began
        self._due_at = self._clock() + seconds / self._time_share

    def describe(self, key: FilterKey, depth: float) -> tuple[PreferredImage | None, str]:
        """Return the image of a filter so far, of a volume a slice, or why there is none."""
        search = self._searches.get(key)
        ascent = None if search is None else search.ascent
        response = None if ascent is None else ascent.response
        refusal = "" if search is None else search.refusal
        if ascent is None or response is None or refusal:
            return None, refusal
        found = PreferredImage(
            encode_crop(ascent.image(), depth),
            box_edges(ascent.box),
            response,
            ascent.steps,
            TOTAL_STEPS,
            volume_slice_at_depth(ascent.shape, ascent.box, depth),
        )
        return found, ""

    def is_searching(self, key: FilterKey) -> bool:
        """Return whether the image of a filter still changes much."""
        search = self._searches.get(key)
        return search is not None and not search.refusal and self._steps(search) < TOTAL_STEPS

    def _steps(self, search: _Search) -> int:
        return 0 if search.ascent is None else search.ascent.steps

    def _advance(self, key: FilterKey, search: _Search, context: BatchContext) -> None:
        try:
            if search.ascent is None or self._has_changed(key, search):
                self._start(key, search, context)
            if search.ascent is not None:
                self._step(search, search.ascent)
        except Exception as error:  # of the user's forward
            log.info("Cannot search the image of %s · %d", *key, exc_info=True)
            search.refusal = f"the network cannot be run for it ({type(error).__name__}: {error})"

    def _start(self, key: FilterKey, search: _Search, context: BatchContext) -> None:
        search.ascent = None
        images = context.images
        search.refusal = input_refusal(context.batch.get_input() if images is None else images[0])
        if images is None:
            search.refusal = search.refusal or NO_IMAGES
        if search.refusal or images is None:
            return
        traced = self._attributor.trace_layer(key[0], images[0])
        if isinstance(traced, str) or self._forward is None:
            search.refusal = str(traced)
            return
        known = [images[i] for i in range(min(len(images), STATISTICS_IMAGES))]
        search.weight = self._weight(*key)
        search.ascent = ImageAscent(
            self._model,
            self._forward,
            traced,
            key[1],
            images[0],
            PixelStatistics.of(known, device_of(traced.conv)),
            seed=search.number,
        )

    def _step(self, search: _Search, ascent: ImageAscent) -> None:
        per_call = CALL_SECONDS / max(self._step_seconds, CALL_SECONDS / MAX_STEPS_PER_CALL)
        steps = max(1, int(per_call))
        began = self._clock()
        if not ascent.advance(steps):
            search.refusal = NO_GRADIENT
        self._step_seconds = (self._clock() - began) / steps
        if ascent.steps >= TOTAL_STEPS:
            search.due_at = self._clock() + REFRESH_SECONDS

    def _has_changed(self, key: FilterKey, search: _Search) -> bool:
        """Return whether the filter has become another one since the search began."""
        weight, before = self._weight(*key), search.weight
        if weight is None or before is None or weight.shape != before.shape:
            return weight is not before
        return bool((weight - before).norm() > MAX_CHANGE * before.norm())

    def _weight(self, layer: str, filter: int) -> Tensor | None:
        """Return a copy of the coefficients of a filter; None if they are not known yet."""
        weight = self._recorder.current_weight(layer)
        conv: Any = dict(self._model.named_modules()).get(layer)
        if weight is None or conv is None:
            return None
        rows = filter_rows(weight.detach(), conv)
        return rows[filter].float().clone() if filter < len(rows) else None
