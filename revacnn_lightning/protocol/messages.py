"""The messages of the wire protocol. `encoding` converts them to frames and back.

Those about an opened layer or a selected filter are in `inspections`, and batches in `snapshot`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct, field

from revacnn_lightning.protocol.access_messages import Access, KeyList, RequestOutcome
from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.automatic_state import AutomaticState
from revacnn_lightning.protocol.gradient_clipping import GradientClipping
from revacnn_lightning.protocol.inspections import Inspected
from revacnn_lightning.protocol.message_html import applied_edit_html
from revacnn_lightning.protocol.plans import FilterChange, PlanSummary
from revacnn_lightning.protocol.rank_messages import TroubledRanks
from revacnn_lightning.protocol.requests import RequestBody
from revacnn_lightning.protocol.snapshot import Snapshot
from revacnn_lightning.protocol.trial_state import TrialState

__all__ = [
    "MAX_HOST_LENGTH",
    "MAX_ID_LENGTH",
    "OUTPUT_UNCHANGED",
    "PROTOCOL_VERSION",
    "Applied",
    "Done",
    "FilterChange",
    "GradientClipping",
    "History",
    "HistoryEdit",
    "HistorySeries",
    "LayerInfo",
    "Message",
    "ParameterGroup",
    "PlanSummary",
    "Planned",
    "Refused",
    "Reply",
    "Request",
    "Snapshot",
    "Status",
    "Structure",
    "TrainingState",
]

# Raise this number when an old peer could misread a new message. New message types, new requests
# and new fields with defaults do not count: both sides ignore what they do not know.
PROTOCOL_VERSION = 3
MAX_ID_LENGTH = 128  # of a request
MAX_HOST_LENGTH = 255

OUTPUT_UNCHANGED = "output unchanged"  # `PlanSummary.output_effect` of an exact edit

TrainingState = Literal["training", "validating", "paused", "finished", "failed"]


class LayerInfo(Struct, frozen=True):
    """One layer with filters: a convolution, or a linear layer, whose units are its filters.

    ``filter_ids`` holds one permanent id per filter: an edit changes a filter's index, never its
    id. ``activation_source`` names the module whose output the statistic ``activation`` sums
    (``"relu1"``); ``""`` means the absolute values of the layer's own output.
    ``edit_refusal`` says why filters can neither be added to this layer nor removed from it; it is
    ``""`` if they can.
    """

    name: str
    module_type: str  # class name: Conv2d, ConvTranspose3d, Linear
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]  # one per dimension; () of a linear layer
    stride: tuple[int, ...]
    groups: int
    filter_ids: list[int]
    frozen_filters: list[int] = field(default_factory=list)  # indices
    activation_source: str = ""
    observed: bool = True  # False: hooks do not fire, for example inside a compiled region
    edit_refusal: str = ""
    parameters: int = 0  # values of its own weight and bias, trainable and frozen
    macs: int = 0  # multiply-accumulates of one sample's forward; 0 until the network is traced
    output_size: tuple[int, ...] | None = None  # of the map; None if unknown or not constant
    learning_rate_factor: float = 1.0  # that its optimizer's rate is multiplied by


class Structure(Struct, frozen=True, tag="structure"):
    """The current network. ``layers`` is in forward order; ``edges`` are (from, to) indices.

    ``undoable`` and ``redoable`` are the numbers of edits that can be undone and redone. They are
    None if the run does not say.
    """

    run: str  # id of the run; a new id means a new run, so discard everything known about the old
    version: int  # increases by one with every edit
    step: int
    model: str  # class name
    layers: list[LayerInfo]
    edges: list[tuple[int, int]] = field(default_factory=list)
    parameter_count: int = 0  # of the whole model, trainable and frozen
    undoable: int | None = None
    redoable: int | None = None


class ParameterGroup(Struct, frozen=True):
    """Current hyperparameters of one parameter group of an optimizer.

    A hyperparameter is None if the optimizer does not have it. ``note`` says that the training has
    overridden a value that was set from outside.
    """

    optimizer: int
    group: int
    optimizer_type: str  # class name
    parameter_count: int
    learning_rate: float | None = None
    weight_decay: float | None = None
    note: str = ""


class Status(Struct, frozen=True, tag="status"):
    """The state of the run. Published on every change, and every second as a heartbeat."""

    run: str
    state: TrainingState
    step: int
    version: int
    time: float  # Unix time, seconds
    detail: str = ""
    parameter_groups: list[ParameterGroup] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)  # the last ones, oldest first
    recording: str = ""  # name of the file to which the run is being recorded; "" if it is not
    automatic: AutomaticState = field(default_factory=AutomaticState)
    compilations: int = 0  # of functions by torch.compile, in this run
    compile_seconds: float = 0.0  # that they have taken
    trial: TrialState | None = None  # that was started last
    gradient_clipping: GradientClipping | None = None  # None: the run does not say


class Request(Struct, frozen=True, tag="request", forbid_unknown_fields=True):
    """The envelope of a request.

    ``id`` belongs to one request only, such as a UUID: a request that arrives twice is carried out
    once, and the second one gets the reply to the first. ``version`` is the structure version for
    which the indices in ``body`` are valid; None allows any. ``dry_run`` requests the plan of an
    edit and changes nothing. ``protocol`` keeps its name in all protocol versions, so that either
    side recognizes the other. ``host`` names the client's machine, for the list of changes.
    """

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
    body: RequestBody
    version: int | None = None
    dry_run: bool = False
    protocol: int = PROTOCOL_VERSION
    host: Annotated[str, Meta(max_length=MAX_HOST_LENGTH)] = ""


class Planned(Struct, frozen=True, tag="planned"):
    """Reply to a dry run."""

    id: str
    plan: PlanSummary


class Applied(Struct, frozen=True, tag="applied"):
    """Reply to an edit that was applied between the batches ``step - 1`` and ``step``."""

    id: str
    step: int
    version: int
    plan: PlanSummary
    output_change: float | None = None  # relative change of the output on the verification batch
    seconds: float = 0.0  # duration of the edit

    def _repr_html_(self) -> str:
        return applied_edit_html(self)


class Done(Struct, frozen=True, tag="done"):
    """Reply to a command (pause, checkpoint, learning rate, ...) that was executed.

    ``step`` is the training batch before which it was executed, or during validation the last one;
    -1 if the run does not say. ``version`` is that of the structure that it led to; -1 if it left
    the network as it was.
    """

    id: str
    detail: str = ""  # "Saved revacnn/step=120.ckpt"
    step: int = -1
    version: int = -1


class Refused(Struct, frozen=True, tag="refused"):
    """Reply to a request that was refused; nothing has changed."""

    id: str
    reason: str
    version: int = -1  # the current structure version; -1 if unknown


class HistorySeries(Struct, frozen=True):
    """Values over the training batches, one row per group of adjacent batches.

    ``values`` is float32 of shape (len(steps), columns): the means over the samples of each row,
    NaN where there are none. ``steps`` are the batches of the last sample of each row, ascending.
    ``weights`` are the numbers of samples of each row.
    """

    steps: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))


class HistoryEdit(Struct, frozen=True):
    """An edit that was applied before batch ``step``.

    ``version`` is that of the resulting structure; -1 if the training was resumed since.
    """

    step: int
    title: str
    version: int = -1
    time: float = 0.0  # Unix time, seconds; 0 if it is unknown


class History(Struct, frozen=True, tag="history"):
    """The history of the run since its first batch. Reply to a request for it.

    It holds at most a few thousand rows, which cover the whole run evenly, and at most 8 MB.

    Attributes:
        id: the id of the request.
        scalars: columns ``scalar_names``. The epoch counts the part of the current one; seconds
            count from ``start``.
        learning_rates: one column per parameter group.
        layers: per statistic, the mean over the filters of each layer of ``layer_names``, one
            column per layer; for ``dead`` the share of the dead filters.
        metrics: what the module has logged, one column each; a row for each change of the value.
        edits: oldest first.
        start: Unix time of the first batch, seconds.
        requests: the outcomes of the newest few hundred steering requests, oldest first.
    """

    id: str = ""
    scalar_names: list[str] = field(default_factory=list)
    scalars: HistorySeries = field(default_factory=HistorySeries)
    learning_rates: HistorySeries = field(default_factory=HistorySeries)
    layer_names: list[str] = field(default_factory=list)
    layers: dict[str, HistorySeries] = field(default_factory=dict)
    metrics: dict[str, HistorySeries] = field(default_factory=dict)
    edits: list[HistoryEdit] = field(default_factory=list)
    start: float = 0.0
    requests: list[RequestOutcome] = field(default_factory=list)


Reply = Planned | Applied | Done | Refused | History | KeyList
Telemetry = Structure | Snapshot | Inspected | Status | RequestOutcome | TroubledRanks
Message = Telemetry | Access | Request | Reply
