"""The tools that inspect layers, filters and images on request. They change nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, Struct

from revacnn_lightning.client import (
    advice_results,
    class_results,
    history_results,
    inspection_results,
)
from revacnn_lightning.client.run import Run
from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol.requests import Patch

__all__ = ["INSPECTION_TOOLS"]

Count = Annotated[int, Meta(ge=1, le=100)]
Index = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Box = tuple[Share, Share, Share, Share]
MAX_FILTERS = 16  # of which the maps are returned
MAX_BOXES = 16


class GetLayerDetail(Struct, forbid_unknown_fields=True):
    """Return the coefficients, gradients and activation maps of filters of a layer, in numbers.

    Without filters, summarize those with the largest mean in the map. With some, add the values of
    small kernels, and the maps as means over at most 8 x 8 cells. image_index selects an image of
    the validation data; null: the first image of the batch.
    """

    layer: str
    filters: Annotated[list[Index], Meta(max_length=MAX_FILTERS)] = []
    image_index: Index | None = None
    timeout_seconds: float = 60.0


class Predict(Struct, forbid_unknown_fields=True):
    """Return what the network predicts for an image: the classes, the true one, and the loss.

    image_index selects an image of the validation data; null: the first input of the batch. The
    parts of the image in erased are replaced by the mean of the image before: each is its top,
    left, bottom and right as shares of its size, from 0 to 1.
    """

    image_index: Index | None = None
    erased: Annotated[list[Box], Meta(max_length=MAX_BOXES)] = []
    timeout_seconds: float = 60.0


class InspectFilterTool(Struct, forbid_unknown_fields=True):
    """Return what activates a filter: its response and its top training images, in numbers.

    The response is that to the image image_index of the validation data; null: to the first image
    of the batch. A box is the top, left, bottom and right of the part of an image that activates
    the filter. A signal is an image with a height of 1. Of volumes, the first slice is added, and
    the one behind the last.
    """

    layer: str
    filter: int
    image_index: Index | None = None


class GetPrices(Struct, forbid_unknown_fields=True):
    """Return what removing filters costs: the cheapest ones, and a summary of each layer.

    The estimate ranks the filters and is no prediction. The change of the loss is measured filter
    by filter; null: not yet, so call again.
    """

    layer: str | None = None
    count: Count = 20
    timeout_seconds: float = 60.0


class GetEvidence(Struct, forbid_unknown_fields=True):
    """Examine a layer: which filters are dead for good, twins or redundant, how clustered it is."""

    layer: str
    timeout_seconds: float = 60.0


class GetVerdictsAfterBatches(Struct, forbid_unknown_fields=True):
    """Return what is wrong with the network and what helps, what is worth most to act on first.

    Waits for batches, because verdicts follow from the last 50; fewer than 20 say nothing. The
    layers in examine are examined before, as by get_evidence: without that, nothing is said of
    filters that are dead for good, twins or clustered.
    """

    examine: Annotated[list[str], Meta(max_length=8)] = []
    batches: Annotated[int, Meta(ge=0, le=200)] = 50
    count: Count = 20
    timeout_seconds: float = 60.0


class GetGrowth(Struct, forbid_unknown_fields=True):
    """Return where one more filter would lower the loss most: the growth gain of each layer."""

    count: Count = 50
    timeout_seconds: float = 60.0


class GetClasses(Struct, forbid_unknown_fields=True):
    """Return which classes the filters of a layer answer to, and whose gradients conflict.

    Listed are the most selective filters. An effect is by how many standard deviations over the
    images a class is above the mean; training increases the activation on a class with a positive
    pull.
    """

    layer: str
    count: Count = 20
    batches: Annotated[int, Meta(ge=1, le=200)] = 20
    timeout_seconds: float = 60.0


class GetClassAnswers(Struct, forbid_unknown_fields=True):
    """Return which filters of the network answer most to a class, and which least."""

    class_index: Index
    count: Count = 20
    timeout_seconds: float = 60.0


class GetNextConfusion(Struct, forbid_unknown_fields=True):
    """Wait for the next validation; return its accuracy, and the most frequent confusions."""

    count: Count = 20
    timeout_seconds: float = 600.0


class CompareRanks(Struct, forbid_unknown_fields=True):
    """Return how the processes of a training with several processes differ on one layer."""

    layer: str
    timeout_seconds: float = 60.0


class GetHistory(Struct, forbid_unknown_fields=True):
    """Return the curves of the run since its first batch, as means over groups of batches.

    With a layer, add its statistics. Edits and requests are the newest ones, the oldest first.
    """

    layer: str | None = None
    points: Annotated[int, Meta(ge=1, le=200)] = 20
    timeout_seconds: float = 60.0


def _get_layer_detail(run: Run, body: GetLayerDetail) -> Any:
    found = run.detail(body.layer, image_index=body.image_index, timeout=body.timeout_seconds)
    return inspection_results.summarize_layer_detail(found, body.filters)


def _predict(run: Run, body: Predict) -> Any:
    index = body.image_index
    if body.erased:
        index = run.paint_image([Patch(*box) for box in body.erased], image_index=index)
    return inspection_results.summarize_image_pass(run.predict(index, timeout=body.timeout_seconds))


def _inspect_filter(run: Run, body: InspectFilterTool) -> Any:
    found = run.inspect(body.layer, body.filter, image_index=body.image_index)
    return inspection_results.summarize_filter_inspection(found)


def _get_prices(run: Run, body: GetPrices) -> Any:
    prices = run.prices(body.layer, timeout=body.timeout_seconds)
    return advice_results.summarize_prices(prices, body.count)


def _get_evidence(run: Run, body: GetEvidence) -> Any:
    found = run.evidence(_checked_layer(run, body.layer), timeout=body.timeout_seconds)
    return advice_results.summarize_evidence(found)


def _get_verdicts(run: Run, body: GetVerdictsAfterBatches) -> Any:
    deadline = time.monotonic() + body.timeout_seconds
    with contextlib.suppress(RequestTimeoutError):  # what is not known is a verdict, too
        _wait_for_snapshots(run, body.batches, body.timeout_seconds)
    for layer in body.examine:
        run.evidence(_checked_layer(run, layer), timeout=max(1.0, deadline - time.monotonic()))
    return advice_results.summarize_verdicts(run.verdicts(), body.count)


def _wait_for_snapshots(run: Run, count: int, timeout: float) -> None:
    """Wait for the statistics of so many batches, unless the run is paused."""
    seen, last = 0, None

    def is_enough(run: Run) -> bool:
        nonlocal seen, last
        if run.snapshot is not None and run.snapshot is not last:
            seen, last = seen + run.snapshot.batch_count, run.snapshot
        is_paused = run.status is not None and run.status.state == "paused"
        return seen >= count or is_paused

    run.wait_for(is_enough, timeout=timeout)


def _get_growth(run: Run, body: GetGrowth) -> Any:
    return advice_results.summarize_growth_gains(
        run.growth_gains(timeout=body.timeout_seconds), body.count
    )


def _get_classes(run: Run, body: GetClasses) -> Any:
    layer = _checked_layer(run, body.layer)
    lens = run.class_lens(layer, batches=body.batches, timeout=body.timeout_seconds)
    return class_results.summarize_class_lens(lens, body.count)


def _get_class_answers(run: Run, body: GetClassAnswers) -> Any:
    found = run.class_answers(body.class_index, timeout=body.timeout_seconds)
    return class_results.summarize_filter_responses_to_class(found, run.structure, body.count)


def _get_confusion(run: Run, body: GetNextConfusion) -> Any:
    return class_results.summarize_confusion(
        run.confusion(timeout=body.timeout_seconds), body.count
    )


def _compare_ranks(run: Run, body: CompareRanks) -> Any:
    found = run.compare_ranks(_checked_layer(run, body.layer), timeout=body.timeout_seconds)
    return advice_results.summarize_rank_differences(found)


def _get_history(run: Run, body: GetHistory) -> Any:
    layer = None if body.layer is None else _checked_layer(run, body.layer)
    history = run.history(timeout=body.timeout_seconds)
    return history_results.summarize_history(history, layer, body.points)


def _checked_layer(run: Run, name: str) -> str:
    """Return the name of a layer, which the run would not refuse.

    Raises:
        EditRefusedError: the network has no such layer.
    """
    names = [] if run.structure is None else [layer.name for layer in run.structure.layers]
    if name not in names:
        raise EditRefusedError(f"there is no layer {name!r}; the layers are {', '.join(names)}")
    return name


INSPECTION_TOOLS: dict[str, tuple[type[Struct], Callable[[Run, Any], Any]]] = {
    "get_layer_detail": (GetLayerDetail, _get_layer_detail),
    "predict": (Predict, _predict),
    "inspect_filter": (InspectFilterTool, _inspect_filter),
    "get_prices": (GetPrices, _get_prices),
    "get_evidence": (GetEvidence, _get_evidence),
    "get_verdicts": (GetVerdictsAfterBatches, _get_verdicts),
    "get_growth": (GetGrowth, _get_growth),
    "get_classes": (GetClasses, _get_classes),
    "get_class_answers": (GetClassAnswers, _get_class_answers),
    "get_confusion": (GetNextConfusion, _get_confusion),
    "compare_ranks": (CompareRanks, _compare_ranks),
    "get_history": (GetHistory, _get_history),
}
