"""The requests of a run as tools for agents: names, JSON schemas, and JSON in and out.

Each call attaches to the run again, so that it returns the present state, and so that an agent that
thinks between two calls does not keep the training recording.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Struct

from revacnn_lightning.client import tool_results
from revacnn_lightning.client.attach import attach
from revacnn_lightning.client.run import Run
from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol.requests import (
    ControlPruning,
    ControlRun,
    Edit,
    PruneTo,
    SetHyperparameter,
    SetPolicy,
    StartRecording,
    StopRecording,
)
from revacnn_lightning.protocol.run_discovery import list_runs

__all__ = ["Tool", "Toolbox"]

BATCH_SECONDS = 5.0  # to wait for a batch: a run that is paused or validating has none
COMMANDS = (
    ControlRun, SetHyperparameter, StartRecording, StopRecording,
    PruneTo, ControlPruning, SetPolicy,
)  # fmt: skip
EDIT_OPTIONS = {
    "dry_run": {
        "type": "boolean",
        "default": False,
        "description": "Return what the edit would do, without doing it.",
    },
    "version": {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "default": None,
        "description": "The structure version that the filter indices refer to. If the network has "
        "changed since, the edit is refused.",
    },
}


class ListRuns(Struct, forbid_unknown_fields=True):
    """List the trainings that run on this machine, newest first."""


class GetStatus(Struct, forbid_unknown_fields=True):
    """Return what the training is doing: its state, batch, epoch, loss, metrics, learning rates."""


class GetStructure(Struct, forbid_unknown_fields=True):
    """Return the layers with filters, how they are connected, and the structure version."""


class GetStatistics(Struct, forbid_unknown_fields=True):
    """Return the statistics of the current training batch.

    With a layer, return the values of each of its filters. Without, return the mean and the largest
    value of each layer, and how many filters were silent (activation exactly zero).
    """

    layer: str | None = None


class InspectFilterTool(Struct, forbid_unknown_fields=True):
    """Return what activates a filter: its response and its top training images, in numbers.

    A box is the top, left, bottom and right of the part of an image that activates it. A signal is
    an image with a height of 1. Of volumes, the first slice is added, and the one behind the last.
    """

    layer: str
    filter: int


class WaitForBatches(Struct, forbid_unknown_fields=True):
    """Wait until this many more batches have been trained, then return the status."""

    batches: int = 100
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: of the tool.
        description: what it does.
        schema: JSON schema of its arguments.
        is_read_only: whether it only observes the training.
        call: takes the arguments and returns what can be encoded as JSON.
    """

    name: str
    description: str
    schema: dict[str, Any]
    is_read_only: bool
    call: Callable[[Mapping[str, Any]], Any]


class Toolbox:
    """The tools of one run.

    Args:
        connection: the path of a connection file; None: the newest run on this machine.
        is_operator: whether agents may edit and control the run.

    Attributes:
        tools: by name.
    """

    def __init__(self, connection: str | Path | None = None, *, is_operator: bool = False) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        observing = [
            _tool(ListRuns, lambda _: [tool_results.describe_run(run) for run in list_runs()]),
            _tool(GetStatus, self._with_run(_get_status)),
            _tool(GetStructure, self._with_run(lambda run, _: tool_results.structure(run))),
            _tool(GetStatistics, self._with_run(_get_statistics)),
            _tool(InspectFilterTool, self._with_run(_inspect_filter), name="inspect_filter"),
            _tool(WaitForBatches, self._with_run(_wait_for_batches)),
        ]
        steering = [self._edit_tool(kind) for kind in get_args(Edit)]
        steering += [
            _tool(kind, self._with_run(lambda run, body: {"result": run.command(body)}), False)
            for kind in COMMANDS
        ]
        tools = [*observing, *(steering if is_operator else [])]
        self.tools = {tool.name: tool for tool in tools}

    def call(self, name: str, arguments: Mapping[str, Any] | None) -> Any:
        """Call a tool and return its result. Only one call is in progress at a time.

        Raises:
            RevacnnError: the tool failed; the message says why.
        """
        if name not in self.tools:
            raise EditRefusedError(
                f"there is no tool {name!r}; the tools are {', '.join(self.tools)}"
            )
        with self._lock:
            return self.tools[name].call(arguments or {})

    def _with_run(self, use: Callable[[Run, Any], Any]) -> Callable[[Any], Any]:
        def attached(body: Any) -> Any:
            with attach(self._connection) as run:
                return use(run, body)

        return attached

    def _edit_tool(self, kind: type[Struct]) -> Tool:
        """A tool that applies an edit or returns its plan."""
        schema = _input_schema(kind)
        schema["properties"] |= EDIT_OPTIONS

        def call(arguments: Mapping[str, Any]) -> Any:
            fields = dict(arguments)
            dry_run, version = fields.pop("dry_run", False), fields.pop("version", None)
            if not isinstance(dry_run, bool) or not isinstance(version, int | None):
                raise EditRefusedError("dry_run must be true or false, and version a number")
            edit = _decode(kind, fields)
            with attach(self._connection) as run:
                if dry_run:
                    return {"plan": tool_results.plain(run.plan(edit, version=version))}
                return {"applied": tool_results.plain(run.apply(edit, version=version))}

        return Tool(_snake_case(kind.__name__), _description(kind), schema, False, call)


def _get_status(run: Run, _: GetStatus) -> Any:
    _wait_for_batch(run)
    return tool_results.status(run)


def _get_statistics(run: Run, body: GetStatistics) -> Any:
    _wait_for_batch(run)
    if run.batch is None:
        raise EditRefusedError(
            "no batch is being trained: the run may be paused or validating; see get_status"
        )
    if body.layer is not None and body.layer not in run.batch:
        raise EditRefusedError(
            f"there is no layer {body.layer!r}; the layers are {', '.join(run.batch)}"
        )
    return tool_results.statistics(run.batch, body.layer)


def _inspect_filter(run: Run, body: InspectFilterTool) -> Any:
    return tool_results.inspection(run.inspect(body.layer, body.filter))


def _wait_for_batches(run: Run, body: WaitForBatches) -> Any:
    assert run.status is not None  # attached
    target = run.status.step + body.batches
    run.wait_for(
        lambda run: run.batch is not None and run.batch.step >= target,
        timeout=body.timeout_seconds,
    )
    return tool_results.status(run)


def _wait_for_batch(run: Run) -> None:
    """Wait for the statistics of a batch, unless the run trains none at present."""
    with contextlib.suppress(RequestTimeoutError):  # batches may be long
        run.wait_for(
            lambda run: run.batch or (run.status is not None and run.status.state != "training"),
            timeout=BATCH_SECONDS,
        )


def _tool(
    kind: type[Struct],
    use: Callable[[Any], Any],
    is_read_only: bool = True,
    *,
    name: str | None = None,
) -> Tool:
    return Tool(
        name or _snake_case(kind.__name__),
        _description(kind),
        _input_schema(kind),
        is_read_only,
        lambda arguments: use(_decode(kind, arguments)),
    )


def _decode(kind: type[Struct], arguments: Mapping[str, Any]) -> Any:
    fields = dict(arguments)
    tag = kind.__struct_config__.tag
    if tag is not None:
        fields["type"] = tag
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise EditRefusedError(f"invalid arguments: {error}") from error


def _input_schema(kind: type[Struct]) -> dict[str, Any]:
    """Return the JSON schema of a struct's fields, without its tag."""
    whole = msgspec.json.schema(kind)
    schema: dict[str, Any] = dict(whole["$defs"][kind.__name__])
    properties = {name: one for name, one in schema["properties"].items() if name != "type"}
    required = [name for name in schema.get("required", []) if name != "type"]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _description(kind: type[Struct]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").replace("`", "")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
