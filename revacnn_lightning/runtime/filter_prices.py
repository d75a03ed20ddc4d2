"""Collects what removing each filter costs, while a viewer shows it: `FilterPrices` messages."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from revacnn_lightning.errors import EditRefusedError, RevacnnError
from revacnn_lightning.protocol.messages import Message, Snapshot
from revacnn_lightning.protocol.prices import FilterPrices, RemovalPrice
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import InspectPrices, RemoveFilters
from revacnn_lightning.runtime.batch import BatchContext, make_probe_without_forwards
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.price_estimates import (
    WINDOW,
    RecentFilterPrices,
    root_sum_square_of_coupled_prices,
)
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor
from revacnn_lightning.telemetry import Recorder

__all__ = ["FilterKey", "FilterPriceCollector"]

SELECTION_SECONDS = 10.0  # how long a selection lasts unless it is renewed
MESSAGE_SECONDS = 1.0  # minimum time between two messages
TIME_SHARE = 0.02  # of the time that measurements take
BURST_SECONDS = 0.5
SECONDS_EACH = 0.01  # for the forwards of a measurement; the number of images follows from it
SECONDS_IN_A_ROW, MAX_IN_A_ROW = 0.06, 16  # of measurements between two batches
STALE_BATCHES = 500  # after which a filter is measured again
MAX_FILTERS = 64  # that a request may ask for
PRICE = "price"

NOT_TRACED = "the prices of coupled filters are added up once the network is traced"

FilterKey = tuple[int, int]  # layer, filter


class FilterPriceCollector:
    """Ranks all filters by the statistic ``price``, and measures the prices of some of them.

    It observes the snapshots of the run: while a viewer shows prices, they hold that statistic. As
    far as there is time, filters are measured one after the other: those that viewers ask for, the
    cheapest ones that were never measured, then the ones that were measured longest ago.

    A ranking that the run itself needs has a window of its own (`begin_ranking`). Its batches are
    the same with and without viewers, and hold the statistic whatever it costs.

    Args:
        recorder: records the statistic while it is needed.
        editor: knows which filters are coupled.
        prices: measures.
        replay: computes the loss.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        editor: Editor,
        prices: LossChangeMeasurer,
        replay: LossReplay,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._recorder = recorder
        self._editor = editor
        self._prices = prices
        self._replay = replay
        self._clock = clock
        self._budget = TokenBucket(TIME_SHARE, BURST_SECONDS, clock)
        self._expires_at = self._due_at = -math.inf
        self._wanted: list[FilterKey] = []
        self._ranked: RecentFilterPrices | None = None  # for `ranking`
        self._ranked_since = 0  # batch
        self.reset()

    def select(self, request: InspectPrices) -> None:
        """Send prices for the next few seconds.

        Raises:
            EditRefusedError: there is no such layer, or too many filters are asked for.
        """
        wanted = self._places(request)
        self._wanted = [*wanted, *(key for key in self._wanted if key not in wanted)][:MAX_FILTERS]
        self._expires_at = self._clock() + SELECTION_SECONDS
        self._recorder.request_statistics({PRICE})
        self._replay.request_recording()

    def reset(self) -> None:
        """Discard all prices: the filters may be others."""
        self._window = RecentFilterPrices()
        self._ranked = None if self._ranked is None else RecentFilterPrices()
        self._measured: dict[FilterKey, tuple[int, RemovalPrice]] = {}  # with the step
        self._refused: set[FilterKey] = set()
        self._wanted = []
        self._note = ""

    def collect(self, context: BatchContext) -> list[FilterPrices]:
        """Measure what there is time for; return the prices if they are due."""
        if not self._is_selected():
            return []
        self._measure(context)
        if self._clock() < self._due_at or not len(self._window):
            return []
        self._due_at = self._clock() + MESSAGE_SECONDS
        return [self._message(context)]

    def _is_selected(self) -> bool:
        if self._clock() < self._expires_at:
            return True
        if self._expires_at > -math.inf:
            self._expires_at = -math.inf
            self._recorder.request_statistics(())
            self.reset()
        return False

    def begin_ranking(self, step: int) -> None:
        """Rank the filters by all batches from this one on, until `end_ranking`."""
        if self._ranked is None:
            self._ranked, self._ranked_since = RecentFilterPrices(), step
            self._recorder.require_statistics({PRICE})

    def end_ranking(self) -> None:
        """Record nothing more for the ranking."""
        if self._ranked is not None:
            self._ranked = None
            self._recorder.require_statistics(())

    def ranked_filters(self, min_batch_count: int) -> list[FilterKey]:
        """Return all filters, cheapest first by the statistic; [] before so many batches.

        Batches are counted since `begin_ranking` and since the last edit.
        """
        if self._ranked is None or self._ranked.batches < min(min_batch_count, WINDOW):
            return []
        return list(self._by_estimate(self._ranked))

    # ---------------------------------------------------------------- observing the run

    def needs_batch(self, step: int) -> bool:
        """Return whether to record the batch."""
        return self._is_selected() or self._ranked is not None

    def receive(self, message: Message, frames: Sequence[Any] = ()) -> None:
        """Receive the statistic of a batch."""
        if isinstance(message, Snapshot) and PRICE in message.statistics:
            values = message.values[message.statistics.index(PRICE)]
            if not np.isfinite(values).any():
                return
            if self._is_selected():
                self._window.add(values, message.batch_count)
            if self._ranked is not None and message.step >= self._ranked_since:
                self._ranked.add(values, message.batch_count)

    def close(self, state: str, detail: str) -> None:
        """Do nothing: this observer holds no resources."""

    # ---------------------------------------------------------------- measuring

    def _measure(self, context: BatchContext) -> None:
        """Measure the next filters, if there is time, with the same forwards without an edit."""
        if self._replay.note or not self._editor.is_traced:
            self._note = self._replay.note
            return
        if self._budget.is_empty:
            return
        started = self._clock()
        for key in itertools.islice(self._next(context.step), MAX_IN_A_ROW):
            self._measure_one(key, context)
            if self._clock() - started > SECONDS_IN_A_ROW:
                break
        self._budget.spend(self._clock() - started)

    def _next(self, step: int) -> Iterator[FilterKey]:
        """Yield the filters to measure: those that are wanted, then those that never were.

        Only after all of them have a price, those with the oldest one follow: in a large network,
        the first ones are stale before the last one has any.
        """
        unknown = (key for key in self._by_estimate(self._window) if key not in self._measured)
        oldest = sorted(self._measured, key=lambda key: self._measured[key][0])
        for key in itertools.chain(self._wanted, unknown, oldest):
            known = self._measured.get(key)
            is_fresh = known is not None and step - known[0] < STALE_BATCHES
            if not is_fresh and key not in self._refused:
                yield key

    def _by_estimate(self, window: RecentFilterPrices) -> Iterator[FilterKey]:
        if not len(window):
            return
        layer_of = np.repeat(np.arange(len(self._recorder.widths)), self._recorder.widths)
        starts = np.cumsum([0, *self._recorder.widths])
        estimates = self._estimates(window)
        if len(estimates) != len(layer_of):
            return
        for index in np.argsort(estimates, kind="stable").tolist():
            layer = int(layer_of[index])
            yield layer, index - int(starts[layer])

    def _measure_one(self, key: FilterKey, context: BatchContext) -> None:
        request = RemoveFilters(self._recorder.layers[key[0]], [key[1]])
        try:
            plan = self._editor.plan(request, make_probe_without_forwards())
        except RevacnnError:  # this filter cannot be removed
            self._refused.add(key)
            return
        price = self._prices.measure(plan, (context.step, context.version), SECONDS_EACH)
        if isinstance(price, str):
            self._note = price
            self._refused.add(key)
            return
        self._note = ""
        index_of = {name: index for index, name in enumerate(self._recorder.layers)}
        for change in () if plan.is_choice else plan.filter_changes:
            if change.layer in index_of:  # coupled filters are removed together
                layer = index_of[change.layer]
                self._measured |= {(layer, i): (context.step, price) for i in change.filters}
        self._measured[key] = context.step, price

    # ---------------------------------------------------------------- the message

    def _message(self, context: BatchContext) -> FilterPrices:
        estimates = self._estimates(self._window).astype(np.float32)
        changes, errors = np.full((2, len(estimates)), np.nan, np.float32)
        starts = np.cumsum([0, *self._recorder.widths])
        newest = max(self._measured.values(), key=lambda one: one[0], default=None)
        oldest = min((step for step, _ in self._measured.values()), default=-1)
        for (layer, filter), (_, price) in self._measured.items():
            index = int(starts[layer]) + filter
            if index < len(changes):
                changes[index], errors[index] = price.change, price.error
        return FilterPrices(
            context.run,
            context.version,
            context.step,
            estimates,
            changes,
            errors,
            loss=math.nan if newest is None else newest[1].loss,
            images=0 if newest is None else newest[1].images,
            batches=len(self._window),
            note=self._note or ("" if self._editor.is_traced else NOT_TRACED),
            oldest=oldest,
            refused=sorted(
                int(starts[layer]) + filter
                for layer, filter in self._refused
                if (layer, filter) not in self._measured
            ),
        )

    def _estimates(self, window: RecentFilterPrices) -> np.ndarray:
        """Return the statistic, of what is removed together, (N,)."""
        values = window.root_mean_square()
        groups = self._editor.traced_groups
        if groups is None or len(values) != sum(self._recorder.widths):
            return values
        return root_sum_square_of_coupled_prices(
            values, self._recorder.layers, self._recorder.widths, groups, self._editor.model
        )

    def _places(self, request: InspectPrices) -> list[FilterKey]:
        """Return where the filters of a request are.

        Raises:
            EditRefusedError: there is no such layer or filter, or they are too many.
        """
        if not request.filters:
            return []
        widths = dict(zip(self._recorder.layers, self._recorder.widths, strict=True))
        width = widths.get(request.layer, 0)
        if len(request.filters) > MAX_FILTERS:
            raise EditRefusedError(f"prices of at most {MAX_FILTERS} filters are sent at a time")
        if not all(0 <= filter < width for filter in request.filters):
            raise EditRefusedError(f"{request.layer} has {width} filters; check the indices")
        layer = self._recorder.layers.index(request.layer)
        return [(layer, filter) for filter in request.filters]
