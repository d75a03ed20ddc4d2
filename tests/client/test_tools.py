"""The requests of a run as tools for agents."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning import EditRefusedError
from revacnn_lightning.client import inspection_results, tool_schemas
from revacnn_lightning.client.inspection_tools import INSPECTION_TOOLS
from revacnn_lightning.client.tools import Toolbox
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.inspections import FilterInspection, TopImage, VolumeSlice
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    Planned,
    PlanSummary,
    Reply,
    Request,
)
from revacnn_lightning.protocol.requests import Edit, RemoveFilters, SetGradientClipping
from tests.client.simulated_run import SimulatedRun, snapshot, status


@pytest.fixture
def toolbox(training: SimulatedRun, tmp_path: Path) -> Toolbox:
    file = connection_file.write(training.connection, tmp_path / "run.json")
    return Toolbox(file, is_operator=True)


def serve(training: SimulatedRun, count: int = 1) -> list[Request]:
    """Reply to all requests until there were ``count`` that are not for the state."""
    handled: list[Request] = []
    step = 0
    while len(handled) < count:
        step += 1
        training.publish(status("training"), snapshot(step))
        for client, request in training.server.receive():
            if getattr(request.body, "action", "") == "send_state":
                training.send_state(client)
            else:
                handled.append(request)
                training.server.reply(client, make_reply(request))
        training.run.poll()
        time.sleep(0.005)
    return handled


def make_reply(request: Request) -> Reply:
    plan = PlanSummary("Title", parameters_before=2, parameters_after=1)
    if not isinstance(request.body, Edit):
        return Done(request.id, "Paused")
    return (
        Planned(request.id, plan) if request.dry_run else Applied(request.id, 7, 0, plan, 0.5, 0.1)
    )


def call(training: SimulatedRun, toolbox: Toolbox, name: str, arguments: dict) -> tuple:
    """Call a tool that sends one request; return its result and the request."""
    with ThreadPoolExecutor(1) as executor:
        result = executor.submit(toolbox.call, name, arguments)
        [request] = serve(training)
        return result.result(), request


def test_an_observer_gets_no_tool_that_changes_the_training():
    observer, operator = Toolbox(), Toolbox(is_operator=True)
    assert all(tool.is_read_only for tool in observer.tools.values())
    assert set(observer.tools) == {
        "list_runs", "get_status", "get_structure", "get_statistics", "wait_for_batches",
        *INSPECTION_TOOLS,
    }  # fmt: skip
    assert set(operator.tools) > set(observer.tools)


def test_every_edit_is_a_tool_with_a_schema():
    operator = Toolbox(is_operator=True)
    steering = {name for name, tool in operator.tools.items() if not tool.is_read_only}
    expected = {tool_schemas.snake_case(kind.__name__) for kind in get_args(Edit)}
    recording = {"start_recording", "stop_recording"}
    automatic = {"prune_to", "control_pruning", "set_policy"}
    trials = {"try_edits", "keep_trial", "discard_trial"}
    commands = {"control_run", "set_hyperparameter", "set_gradient_clipping"}
    assert steering == {*expected, *recording, *automatic, *trials, *commands}
    for tool in operator.tools.values():
        assert tool.description
        assert "type" not in tool.schema["properties"]
        json.dumps(tool.schema)
    schema = operator.tools["remove_filters"].schema
    assert schema["required"] == ["layer", "filters"]
    assert set(schema["properties"]) == {
        "layer", "filters", "confirmed", "dry_run", "version",
    }  # fmt: skip


def test_the_gradient_is_clipped(training: SimulatedRun, toolbox: Toolbox):
    arguments = {"value": 0.5, "algorithm": "value"}
    result, request = call(training, toolbox, "set_gradient_clipping", arguments)
    assert request.body == SetGradientClipping(0.5, "value")
    assert result == {"result": "Paused"}  # what the run has replied
    _, request = call(training, toolbox, "set_gradient_clipping", {"value": None})
    assert request.body == SetGradientClipping(None)


def test_an_edit_is_applied(training: SimulatedRun, toolbox: Toolbox):
    arguments = {"layer": "a", "filters": [1], "version": 0}
    result, request = call(training, toolbox, "remove_filters", arguments)
    assert (request.body, request.version, request.dry_run) == (RemoveFilters("a", [1]), 0, False)
    assert result["applied"]["plan"]["title"] == "Title"
    assert "id" not in result["applied"]


def test_a_dry_run_returns_the_plan(training: SimulatedRun, toolbox: Toolbox):
    result, request = call(training, toolbox, "add_filters", {"layer": "a", "dry_run": True})
    assert request.dry_run
    assert result["plan"]["parameters_after"] == 1


def test_a_command_returns_what_was_done(training: SimulatedRun, toolbox: Toolbox):
    result, _ = call(training, toolbox, "control_run", {"action": "pause"})
    assert result == {"result": "Paused"}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nothing", {}, "there is no tool 'nothing'"),
        ("remove_filters", {"layer": "a"}, "missing required field `filters`"),
        ("remove_filters", {"layer": "a", "filters": [0], "dryrun": True}, "dryrun"),
        ("remove_filters", {"layer": "a", "filters": [0], "dry_run": "yes"}, "dry_run must be"),
        ("get_status", {"layer": "a"}, "unknown field `layer`"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_sent(
    name: str, arguments: dict, message: str
):
    with pytest.raises(EditRefusedError, match=message):
        Toolbox(is_operator=True).call(name, arguments)


def observe(training: SimulatedRun, toolbox: Toolbox, name: str, arguments: dict) -> dict:
    with ThreadPoolExecutor(1) as executor:
        result = executor.submit(toolbox.call, name, arguments)
        step = 0
        while not result.done():
            step += 1
            training.publish(status("training"), snapshot(step))
            for client, _ in training.server.receive():
                training.send_state(client)
            training.run.poll()
            time.sleep(0.005)
        return result.result()


def test_statistics_are_summarized_by_layer_or_listed_by_filter(
    training: SimulatedRun, toolbox: Toolbox
):
    summary = observe(training, toolbox, "get_statistics", {})
    assert summary["layers"]["a"] == {
        "filters": 2,
        "gradient": {"mean": 0.5, "max": 1.0},
        "activation": {"mean": 10.5, "max": 11.0},
        "silent_filters": 0,
    }
    values = observe(training, toolbox, "get_statistics", {"layer": "a"})
    assert values["filters"]["gradient"] == [0.0, 1.0]
    with pytest.raises(EditRefusedError, match="no layer 'c'; the layers are a, b"):
        observe(training, toolbox, "get_statistics", {"layer": "c"})


def test_the_status_can_be_encoded_as_json(training: SimulatedRun, toolbox: Toolbox):
    known = observe(training, toolbox, "get_status", {})
    assert known["state"] == "training"
    assert known["metrics"] == {"accuracy": 0.5}
    json.dumps(known, allow_nan=False)


def test_the_structure_has_the_version_that_edits_need(training: SimulatedRun, toolbox: Toolbox):
    network = observe(training, toolbox, "get_structure", {})
    assert network["version"] == 0
    assert [layer["name"] for layer in network["layers"]] == ["a", "b"]


def test_waiting_returns_after_that_many_batches(training: SimulatedRun, toolbox: Toolbox):
    assert observe(training, toolbox, "wait_for_batches", {"batches": 5})["step"] >= 12


def test_a_list_of_runs_does_not_contain_their_keys(training: SimulatedRun):
    connection_file.write(training.connection)
    listed = json.dumps(Toolbox().call("list_runs", None))
    assert '"run": "run"' in listed
    assert training.connection.server_key not in listed


def test_schemas_accept_what_the_structs_accept():
    for tool in Toolbox(is_operator=True).tools.values():
        assert tool.schema["additionalProperties"] is False
        assert msgspec.json.decode(msgspec.json.encode(tool.schema)) == tool.schema


def test_the_slices_of_volumes_are_part_of_an_inspection() -> None:
    nothing, volume = np.zeros(0, np.float16), VolumeSlice(5, 16, 3, 8)
    crop = np.zeros((1, 2, 3), np.uint8)
    top = TopImage(crop, (0, 1, 2, 4), (8, 9), 2.5, 7, VolumeSlice(1, 16, 0, 3))
    found = FilterInspection(
        "run", 0, 9, "conv", 1, nothing, nothing, nothing, [top], response=3.0, box=(1, 2, 3, 4),
        image_size=(8, 9), volume=volume, receptive_field=(2, 3), receptive_field_depth=5,
    )  # fmt: skip
    result = inspection_results.summarize_filter_inspection(found)
    assert (result["slices"], result["image_depth"], result["receptive_field_depth"]) == (
        [3, 8],
        16,
        5,
    )
    assert result["top_images"][0]["slices"] == [0, 3]
    assert "slices" not in inspection_results.summarize_filter_inspection(
        replace(found, volume=None)
    )
