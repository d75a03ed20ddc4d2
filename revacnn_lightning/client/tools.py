"""The requests of a run as tools for agents: names, JSON schemas, and JSON in and out.

Each call attaches to the run again, so that it returns the present state, and so that an agent that
thinks between two calls does not keep the training recording.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from msgspec import Meta, Struct

from revacnn_lightning.client import tool_results
from revacnn_lightning.client.attach import attach
from revacnn_lightning.client.inspection_tools import INSPECTION_TOOLS
from revacnn_lightning.client.run import Run
from revacnn_lightning.client.tool_schemas import (
    decode_arguments,
    input_schema,
    snake_case,
    tool_description,
)
from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol.requests import (
    ControlPruning,
    ControlRun,
    DiscardTrial,
    Edit,
    KeepTrial,
    PruneTo,
    SetGradientClipping,
    SetHyperparameter,
    SetPolicy,
    StartRecording,
    StopRecording,
)
from revacnn_lightning.protocol.run_discovery import list_runs
from revacnn_lightning.protocol.trial_requests import (
    MAX_TRIAL_BATCHES,
    MAX_TRIAL_EDITS,
    TrialEdit,
)

__all__ = ["Tool", "Toolbox"]

BATCH_SECONDS = 5.0  # to wait for a batch: a run that is paused or validating has none
COMMANDS = (
    ControlRun, SetHyperparameter, SetGradientClipping, StartRecording, StopRecording,
    PruneTo, ControlPruning, SetPolicy, KeepTrial, DiscardTrial,
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

    With a layer, return the values of each of its filters, at most 256. Without, return the mean
    and the largest value of each layer, and how many filters were silent (activation exactly zero).
    """

    layer: str | None = None


class WaitForBatches(Struct, forbid_unknown_fields=True):
    """Wait until this many more batches have been trained, then return the status."""

    batches: int = 100
    timeout_seconds: float = 60.0


class TryEditsTool(Struct, forbid_unknown_fields=True):
    """Train the edited and the unedited network on the same next batches; compare their losses.

    The training waits at the end, until the trial is kept or discarded: call keep_trial or
    discard_trial. All edits name filters as they are before the trial. With dry_run, return its
    memory and time without it. After timeout_seconds, the trial goes on: see get_status.
    """

    edits: Annotated[list[TrialEdit], Meta(min_length=1, max_length=MAX_TRIAL_EDITS)]
    batches: Annotated[int, Meta(ge=2, le=MAX_TRIAL_BATCHES)] = 20
    dry_run: bool = False
    version: int | None = None
    timeout_seconds: float = 600.0


@dataclass(frozen=True)
class Tool:
    """A tool that an agent can call.

    Attributes:
        name: the name by which agents call it.
        description: what it does.
        schema: JSON schema of its arguments.
        is_read_only: whether it only observes the training.
        call: takes the arguments, and returns a result that JSON can encode.
    """

    name: str
    description: str
    schema: dict[str, Any]
    is_read_only: bool
    call: Callable[[Mapping[str, Any]], Any]


class Toolbox:
    """The tools by which agents observe one run, and steer it if they may.

    Args:
        connection: the path of a connection file; None: the newest run on this machine.
        is_operator: whether agents may edit and control the run.

    Attributes:
        tools: all tools, by name.
    """

    def __init__(self, connection: str | Path | None = None, *, is_operator: bool = False) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        observing = [
            _tool(
                ListRuns,
                lambda _: [tool_results.summarize_run_identity(run) for run in list_runs()],
            ),
            _tool(GetStatus, self._with_run(_get_status)),
            _tool(
                GetStructure, self._with_run(lambda run, _: tool_results.summarize_structure(run))
            ),
            _tool(GetStatistics, self._with_run(_get_statistics)),
            _tool(WaitForBatches, self._with_run(_wait_for_batches)),
        ]
        observing += [
            _tool(kind, self._with_run(use), name=name)
            for name, (kind, use) in INSPECTION_TOOLS.items()
        ]
        steering = [self._edit_tool(kind) for kind in get_args(Edit)]
        steering += [
            _tool(kind, self._with_run(lambda run, body: {"result": run.command(body)}), False)
            for kind in COMMANDS
        ]
        steering.append(_tool(TryEditsTool, self._with_run(_try_edits), False, name="try_edits"))
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
        schema = input_schema(kind)
        schema["properties"] |= EDIT_OPTIONS

        def call(arguments: Mapping[str, Any]) -> Any:
            fields = dict(arguments)
            dry_run, version = fields.pop("dry_run", False), fields.pop("version", None)
            if not isinstance(dry_run, bool) or not isinstance(version, int | None):
                raise EditRefusedError("dry_run must be true or false, and version a number")
            edit = decode_arguments(kind, fields)
            with attach(self._connection) as run:
                if dry_run:
                    return {"plan": tool_results.message_to_dict(run.plan(edit, version=version))}
                return {"applied": tool_results.message_to_dict(run.apply(edit, version=version))}

        return Tool(snake_case(kind.__name__), tool_description(kind), schema, False, call)


def _get_status(run: Run, _: GetStatus) -> Any:
    _wait_for_batch(run)
    return tool_results.summarize_status(run)


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
    return tool_results.summarize_statistics(run.batch, body.layer)


def _try_edits(run: Run, body: TryEditsTool) -> Any:
    if body.dry_run:
        cost = run.trial_cost(body.edits, batches=body.batches, version=body.version)
        return {"cost": tool_results.message_to_dict(cost)}
    trial = run.try_edits(
        body.edits, batches=body.batches, version=body.version, timeout=body.timeout_seconds
    )
    return {"trial": tool_results.summarize_trial(trial)}


def _wait_for_batches(run: Run, body: WaitForBatches) -> Any:
    assert run.status is not None  # attached
    target = run.status.step + body.batches
    run.wait_for(
        lambda run: run.batch is not None and run.batch.step >= target,
        timeout=body.timeout_seconds,
    )
    return tool_results.summarize_status(run)


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
        name or snake_case(kind.__name__),
        tool_description(kind),
        input_schema(kind),
        is_read_only,
        lambda arguments: use(decode_arguments(kind, arguments)),
    )
