"""Prices of filters as scripts read them, and the removal of the cheapest ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from revacnn_lightning import EditRefusedError, Prices, RemoveFilters, Run
from revacnn_lightning.protocol.messages import Applied, Done, LayerInfo, PlanSummary, Request
from revacnn_lightning.protocol.prices import FilterPrices
from revacnn_lightning.protocol.requests import InspectPrices
from tests.client.simulated_run import SimulatedRun, layer, structure
from tests.runtime.live_run import train_with

NETWORK = structure(0, layer("a", 10, 11, 12), layer("b", 20, 21, 22), layer("c", 30, 31))


def message(
    estimates: list[float], changes: list[float] | None = None, batches: int = 5, version: int = 0
) -> FilterPrices:
    known = np.full(len(estimates), np.nan) if changes is None else np.array(changes)
    array, measured = np.array(estimates, np.float32), known.astype(np.float32)
    return FilterPrices("run", version, 9, array, measured, measured / 10, 0.5, 32, batches)


def test_prices_are_arrays_by_layer():
    prices = Prices(message([3, 1, 2, 5, 4, 6, 7, 8], [0.1] + [np.nan] * 7), NETWORK, None)
    assert list(prices) == ["a", "b", "c"]
    np.testing.assert_array_equal(prices["b"]["estimate"], [5, 4, 6])
    np.testing.assert_array_equal(prices["a"]["change"], np.float32([0.1, np.nan, np.nan]))
    np.testing.assert_array_equal(prices["a"]["error"], np.float32([0.01, np.nan, np.nan]))
    assert (prices.version, prices.step, prices.loss, prices.images) == (0, 9, 0.5, 32)
    assert prices.oldest == -1
    with pytest.raises(KeyError, match="d: the layers are a, b, c"):
        prices["d"]


@pytest.mark.parametrize(
    ("layer_name", "count", "expected"),
    [
        (None, 3, {"a": [1, 2], "b": [1]}),
        (None, 99, {"a": [1, 2], "b": [0, 1], "c": [0]}),  # each layer keeps one
        ("b", 1, {"b": [1]}),
    ],
)
def test_the_cheapest_filters_are_indices_by_layer(
    layer_name: str | None, count: int, expected: dict[str, list[int]]
):
    prices = Prices(message([3, 1, 2, 5, 4, 6, 7, 8]), NETWORK, layer_name)
    assert prices.cheapest(count) == expected


def ask(training: SimulatedRun, *messages: FilterPrices, **options: str) -> tuple[Prices, Request]:
    training.publish(NETWORK)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(training.run.prices, **options)
        request = training.reply(lambda request: Done(request.id))
        training.publish(*messages)
        return waiting.result(), request


def test_a_script_had_no_prices_but_those_of_its_plans(training: SimulatedRun):
    estimates = [1.0] * 8
    prices, request = ask(
        training,
        message(estimates, batches=4),  # too few
        message(estimates, version=7),  # of a network that is not known
        message([1.0] * 3),
        message(estimates, batches=6),
        layer="b",
    )
    assert request.body == InspectPrices("b", [0, 1, 2])
    assert (prices.batches, list(prices)) == (6, ["b"])


def test_prices_of_a_missing_layer_are_refused_before_anything_is_sent(training: SimulatedRun):
    training.publish(NETWORK)
    with pytest.raises(EditRefusedError, match="no layer 'd'; the layers are a, b, c"):
        training.run.prices("d")


def test_a_coupled_removal_shifted_the_indices_of_the_next_layer(training: SimulatedRun):
    training.publish(NETWORK)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(training.run.remove_filters, {"a": [0], "b": [0, 2], "c": [0]})

        def apply(version: int, *layers: LayerInfo) -> Request:
            client, request = training.receive()
            training.publish(structure(version, *layers))
            training.server.reply(client, Applied(request.id, 3, version, PlanSummary("Remove")))
            return request

        shorter = layer("a", 11, 12), layer("b", 21, 22), layer("c", 31)  # a 10, b 20, c 30 coupled
        first = apply(1, *shorter)
        second = apply(2, shorter[0], layer("b", 21), shorter[2])
        replies = waiting.result()
    assert (first.body, first.version) == (RemoveFilters("a", [0]), 0)
    assert (second.body, second.version) == (RemoveFilters("b", [1]), 1)  # its filter 2, by id
    assert len(replies) == 2  # filter 0 of c is gone


@pytest.mark.parametrize("filters", [{"a": [3]}, {"a": [-1]}, {"d": [0]}])
def test_filters_that_do_not_exist_are_refused(training: SimulatedRun, filters: dict):
    training.publish(NETWORK)
    with pytest.raises(EditRefusedError, match=r"a has 3 filters|no layer 'd'"):
        training.run.remove_filters(filters)
    with pytest.raises(EditRefusedError, match="structure 5 is not known"):
        training.run.remove_filters(filters, version=5)


def test_a_script_removes_the_cheapest_filters_of_a_training(tmp_path: Path):
    def client(run: Run) -> dict:
        prices = run.prices()
        cheapest = prices.cheapest(2)
        replies = run.remove_filters(cheapest, version=prices.version)
        return {"prices": prices, "cheapest": cheapest, "replies": replies, "after": run.structure}

    result, _ = train_with(client, tmp_path)
    estimates = np.concatenate([values["estimate"] for values in result["prices"].values()])
    assert (estimates >= 0).all()
    assert estimates.any()
    assert sum(map(len, result["cheapest"].values())) == 2
    assert len(result["replies"]) == len(result["cheapest"])
    widths = {one.name: one.out_channels for one in result["after"].layers}
    for name, filters in result["cheapest"].items():
        assert widths[name] == len(result["prices"][name]["estimate"]) - len(filters)
