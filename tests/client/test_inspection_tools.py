"""The tools for what the page requests while somebody looks: short results that change nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revacnn_lightning import EditRefusedError, Prices, Run
from revacnn_lightning.client import (
    advice_results,
    class_results,
    history_results,
    inspection_results,
    tool_results,
)
from revacnn_lightning.client.inspection_tools import INSPECTION_TOOLS
from revacnn_lightning.client.tools import Toolbox
from revacnn_lightning.client.trial import Trial
from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.evidence import LayerEvidence, TwinEvidence
from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages, Histogram, LayerDetail
from revacnn_lightning.protocol.messages import (
    Done,
    History,
    HistoryEdit,
    HistorySeries,
    Message,
    PlanSummary,
)
from revacnn_lightning.protocol.prices import FilterPrices, RemovalPrice
from revacnn_lightning.protocol.requests import is_steering
from revacnn_lightning.protocol.trial_state import TrialState
from tests.client.simulated_run import SimulatedRun, layer, snapshot, status, structure
from tests.runtime.live_run import train_with

WIDTH = 4096  # units of a hidden layer of AlexNet
MAX_BYTES = 16_000  # of a result: some 5,000 tokens


def size_of(result: Any) -> int:
    """Return the length of a result as JSON, which has no NaN."""
    return len(json.dumps(result, allow_nan=False))


# ---------------------------------------------------------------------- what is sent


class Answers:
    """Replies to a tool as a run does, and notes what it was asked."""

    def __init__(self, training: SimulatedRun, tmp_path: Path) -> None:
        self.training, self.bodies = training, []
        self.file = connection_file.write(training.connection, tmp_path / "run.json")

    def call(self, name: str, arguments: dict[str, Any], *answers: Message) -> Any:
        toolbox, training = Toolbox(self.file), self.training
        with ThreadPoolExecutor(1) as executor:
            result = executor.submit(toolbox.call, name, arguments)
            step = 0

            def serve() -> bool:
                nonlocal step
                step += 1
                training.publish(status("training"), snapshot(step))
                for client, request in training.server.receive():
                    if getattr(request.body, "action", "") == "send_state":
                        training.send_state(client)
                    else:
                        self.bodies.append(request.body)
                        training.server.reply(client, Done(request.id))
                        training.publish(*answers)
                training.run.poll()
                return result.done()

            training.until(serve)
            return result.result()


@pytest.fixture
def answers(training: SimulatedRun, tmp_path: Path) -> Answers:
    return Answers(training, tmp_path)


def test_agents_could_not_ask_for_prices(answers: Answers):
    values = np.array([3, 1, 2], np.float32)
    message = FilterPrices("run", 0, 9, values, values / 10, values / 100, 0.5, 32, batches=5)
    result = answers.call("get_prices", {"count": 1}, message)
    assert result["cheapest"] == [
        {"layer": "a", "filter": 1, "estimate": 1.0, "change": 0.1, "error": 0.01}
    ]
    assert result["layers"]["b"] == {
        "filters": 1, "measured": 1, "median_estimate": 2.0, "median_change": 0.2,
    }  # fmt: skip
    assert not any(is_steering(body) for body in answers.bodies)


def test_agents_could_not_ask_for_verdicts(answers: Answers):
    evidence = LayerEvidence("run", 0, 9, "a", 2, provably_dead=[1])
    result = answers.call("get_verdicts", {"examine": ["a"], "batches": 3}, evidence)
    assert [one["filters"] for one in result["verdicts"] if one["kind"] == "provably_dead"] == [[1]]
    assert not any(is_steering(body) for body in answers.bodies)


@pytest.mark.parametrize("name", ["get_evidence", "get_classes", "compare_ranks", "get_history"])
def test_a_missing_layer_is_refused_before_anything_is_waited_for(answers: Answers, name: str):
    with pytest.raises(EditRefusedError, match="no layer 'z'; the layers are a, b"):
        answers.call(name, {"layer": "z"})
    assert answers.bodies == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("get_prices", {"count": 0}),
        ("get_layer_detail", {"layer": "a", "filters": list(range(17))}),
        ("predict", {"image_index": -1}),
        ("predict", {"erased": [[0, 0, 2, 1]]}),
        ("get_class_answers", {"class_index": -1}),
    ],
)
def test_arguments_out_of_bounds_are_refused(name: str, arguments: dict[str, Any]):
    with pytest.raises(EditRefusedError, match="invalid arguments"):
        Toolbox().call(name, arguments)


# ---------------------------------------------------------------------- results of wide layers


def test_a_layer_of_alexnet_is_short(tmp_path: Path):
    """Each result of a layer with 4,096 units fits in the memory of an agent."""
    nothing, ids = FilterFeaturesAndImages(np.zeros((WIDTH, 2)), np.zeros(0)), list(range(WIDTH))
    maps = np.random.default_rng(0).standard_normal((WIDTH, 55, 55)).astype(np.float16)
    kernels = FilterFeaturesAndImages(np.zeros((WIDTH, 2)), maps[:, :11, :11])
    activations = FilterFeaturesAndImages(np.zeros((WIDTH, 2)), maps)
    histogram = Histogram(np.ones(64), 0.1)
    detail = LayerDetail(
        "run", 0, 9, "fc", kernels, nothing, activations, nothing,
        np.zeros((3, 224, 224)), weight_histogram=histogram,
    )  # fmt: skip
    twins = [TwinEvidence(ids, 1.0, [0.333333] * WIDTH) for _ in range(100)]
    found = LayerEvidence("run", 0, 9, "fc", WIDTH, ids, twins=twins, redundant=ids)
    values, network = np.arange(WIDTH) / 7, structure(0, layer("fc", *ids))
    message = FilterPrices("run", 0, 9, *np.float32([values] * 3), batches=5)
    verdict = Verdict("dead", "fc", "silent in the last 20 batches", 0.9, tuple(ids))
    table = np.random.default_rng(1).random((WIDTH, 128)).astype(np.float32)
    lens = ClassLens(
        "run", 0, 9, "fc", list(range(128)), ["long-haired dachshund"] * 128, table[0], table,
        table, table[:, 0], table[:, 1], table[:, 2],
    )  # fmt: skip
    names = ["long-haired dachshund"] * 1000
    results = {
        "detail": inspection_results.summarize_layer_detail(detail, []),
        "detail of some": inspection_results.summarize_layer_detail(detail, ids[:16]),
        "evidence": advice_results.summarize_evidence(found),
        "prices": advice_results.summarize_prices(Prices(message, network, None), 100),
        "verdicts": advice_results.summarize_verdicts([verdict] * 30, 20),
        "classes": class_results.summarize_class_lens(lens, 20),
        "answers": class_results.summarize_filter_responses_to_class(
            ClassAnswers("run", 0, 9, 3, np.float32(values), 9.0, names, 1000), network, 100
        ),
        "confusion": class_results.summarize_confusion(
            Confusion("run", 0, 9, np.ones((1000, 1000), np.float32), names), 100
        ),
    }
    sizes = {name: size_of(result) for name, result in results.items()}
    assert max(sizes.values()) <= MAX_BYTES, sizes


def test_a_long_history_is_short():
    def series(columns: int) -> HistorySeries:
        values = np.arange(2000.0 * columns, dtype=np.float32).reshape(2000, columns)
        values[0] = np.nan
        return HistorySeries(list(range(2000)), [1] * 2000, values)

    outcomes = [
        RequestOutcome("run", str(i), "Remove conv2 · filter 36", "applied", 0.0, i, i, "ann", "pc")
        for i in range(300)
    ]
    history = History(
        "", ["loss", "epoch"], series(2), series(3), ["a", "b"], {"gradient": series(2)},
        {f"metric{i}": series(1) for i in range(50)},
        [HistoryEdit(i, "Remove conv2 · filter 36") for i in range(400)], 0.0, outcomes,
    )  # fmt: skip
    result = history_results.summarize_history(history, "b", 20)
    assert size_of(result) <= MAX_BYTES
    curve = result["curves"]["loss"]
    assert len(curve["steps"]) == len(curve["values"]) == 20
    assert curve["values"][1] == np.float32(np.arange(200, 400, 2).mean())  # every 100 rows
    assert curve["steps"][-1] == 1999
    assert result["edits"][-1] == {"step": 399, "title": "Remove conv2 · filter 36"}
    assert result["requests"][-1]["who"] == "ann on pc"


def test_a_curve_is_weighted_by_its_samples():
    series = HistorySeries([4, 9], [1, 3], np.array([[1.0], [5.0]], np.float32))
    history = History("", ["loss"], series)
    assert history_results.summarize_history(history, None, 1)["curves"]["loss"] == {
        "steps": [9],
        "values": [4.0],
    }


def test_a_plan_with_a_single_group_of_images_was_no_json():
    """Its standard error is NaN, which JSON does not have."""
    plan = PlanSummary("Remove", price=RemovalPrice(0.1, float("nan"), 0.5, 16, 3))
    assert tool_results.message_to_dict(plan)["price"]["error"] is None
    size_of(tool_results.message_to_dict(plan))


def test_a_trial_is_its_change_and_no_list_of_losses():
    state = TrialState(
        "undecided", "id", ["Remove"], 3, 200, 400, [1.0] * 200, [1.5] * 200, 0.5, 0.4, 0.6
    )
    result = tool_results.summarize_trial(Trial(state, str, str))
    assert (result["change"], result["interval"], result["batches"]) == (0.5, [0.4, 0.6], 200)
    assert size_of(result) < 500


def test_filters_in_numbers_have_the_place_of_their_strongest_response():
    maps = np.zeros((2, 16, 16), np.float32)
    maps[1, 5, 9] = 64
    view = FilterFeaturesAndImages(np.zeros((2, 2)), maps)
    kernels = FilterFeaturesAndImages(
        np.zeros((2, 2)), np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    )
    nothing = FilterFeaturesAndImages(np.zeros((2, 2)), np.zeros(0))
    detail = LayerDetail("run", 0, 9, "a", kernels, nothing, view, nothing, np.zeros((1, 16, 16)))
    first, second = inspection_results.summarize_layer_detail(detail, [])["filters"]
    assert (first["filter"], second["filter"]) == (1, 0)  # the most active one first
    assert first["activation_map"]["max_at"] == [5, 9]
    assert "gradients" not in first  # were not sent
    [whole] = inspection_results.summarize_layer_detail(detail, [1])["filters"]
    assert whole["coefficients"]["values"] == [[9, 10, 11], [12, 13, 14], [15, 16, 17]]
    assert np.shape(whole["activation_map"]["cells"]) == (8, 8)
    assert whole["activation_map"]["cells"][2][4] == 16  # the mean of four
    with pytest.raises(EditRefusedError, match="a has 2 filters"):
        inspection_results.summarize_layer_detail(detail, [2])


# ---------------------------------------------------------------------- a training


def test_an_agent_sees_what_the_page_sees_and_tries_an_edit(tmp_path: Path):
    arguments: dict[str, dict[str, Any]] = {
        "get_layer_detail": {"layer": "conv2", "filters": [1], "image_index": 0},
        "predict": {"image_index": 1, "erased": [[0, 0, 0.5, 0.5]]},
        "inspect_filter": {"layer": "conv2", "filter": 1, "image_index": 0},
        "get_prices": {"layer": "conv2"},
        "get_evidence": {"layer": "conv2"},
        "get_verdicts": {"batches": 30},
        "get_growth": {},
        "get_classes": {"layer": "conv1"},
        "get_class_answers": {"class_index": 1},
        "get_confusion": {},
        "get_history": {"layer": "conv1"},
    }
    assert set(arguments) == set(INSPECTION_TOOLS) - {"compare_ranks"}  # of several processes

    def client(run: Run) -> dict[str, Any]:
        file = connection_file.write(run.connection, tmp_path / "run.json")
        toolbox = Toolbox(file, is_operator=True)
        results = {name: toolbox.call(name, given) for name, given in arguments.items()}
        edit = {"type": "RemoveFilters", "layer": "conv1", "filters": [0]}
        results["cost"] = toolbox.call("try_edits", {"edits": [edit], "dry_run": True})
        results["trial"] = toolbox.call("try_edits", {"edits": [edit], "batches": 4})
        results["status"] = toolbox.call("get_status", {})
        results["kept"] = toolbox.call("keep_trial", {})
        return results | {"structure": toolbox.call("get_structure", {})}

    results, _ = train_with(client, tmp_path, validate=True, num_sanity_val_steps=0)
    assert size_of(results) <= 4 * MAX_BYTES
    assert [one["filter"] for one in results["get_layer_detail"]["filters"]] == [1]
    assert len(results["predict"]["prediction"]["classes"]) == 2
    assert {one["layer"] for one in results["get_prices"]["cheapest"]} == {"conv2"}
    assert results["get_evidence"]["layer"] == "conv2"
    assert results["get_verdicts"].keys() >= {"verdicts", "unknown"}
    assert results["get_growth"]["gains"]
    assert results["get_classes"]["classes"].keys() == {"0", "1"}
    assert results["get_class_answers"]["most"]
    assert 0 <= results["get_confusion"]["accuracy"] <= 1
    assert results["get_history"]["layer"]["gradient"]["values"]
    assert results["cost"]["cost"]["bytes"] > 0
    assert results["trial"]["trial"]["batches"] == 4
    assert results["status"]["trial"]["stage"] == "undecided"
    assert results["structure"]["layers"][0]["out_channels"] == 3  # of four
