"""ReVACNN for Lightning: monitor every filter of a CNN while it trains, and edit the network.

Importing this package loads neither torch nor Lightning, because a machine that only views needs
neither: every public name is imported from its module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AddFilters",
    "Alert",
    "Applied",
    "Batch",
    "BatchStream",
    "ClassAnswers",
    "ClassLens",
    "Confusion",
    "Connection",
    "ConnectionFileError",
    "ControlPruning",
    "ControlRun",
    "DiscardTrial",
    "EditFailedError",
    "EditRefusedError",
    "EmbeddedViewer",
    "Figure",
    "FilterInspection",
    "Freeze",
    "History",
    "ImagePass",
    "InsertLayer",
    "KeepTrial",
    "KeyInfo",
    "KeyRefusedError",
    "LayerDetail",
    "LayerEvidence",
    "LayerInfo",
    "LoopRun",
    "LossChange",
    "MergeFilters",
    "MissingPackageError",
    "ObserverKeyError",
    "Patch",
    "PendingRequest",
    "PlanSummary",
    "PreferredImage",
    "Prices",
    "Proposal",
    "ProtocolError",
    "ProtocolVersionError",
    "PruneTo",
    "PruningState",
    "RankValues",
    "ReVACNN",
    "RecordingError",
    "Redo",
    "Reinitialize",
    "RemoveFilters",
    "RemoveLayer",
    "RequestTimeoutError",
    "RevacnnError",
    "Run",
    "RunEndedError",
    "ScaleLearningRate",
    "SetFilter",
    "SetGradientClipping",
    "SetHyperparameter",
    "SetPolicy",
    "Snapshot",
    "StaleStructureError",
    "StartRecording",
    "Status",
    "SteeringError",
    "StopRecording",
    "Structure",
    "Trial",
    "TrialCost",
    "TrialState",
    "TryEdits",
    "Undo",
    "Unfreeze",
    "Verdict",
    "attach",
    "load_edited",
    "monitor",
    "show",
]

if TYPE_CHECKING:
    from revacnn_lightning.callback import ReVACNN
    from revacnn_lightning.client.attach import attach
    from revacnn_lightning.client.batch import Batch
    from revacnn_lightning.client.batch_stream import BatchStream
    from revacnn_lightning.client.embedded_viewer import EmbeddedViewer, show
    from revacnn_lightning.client.loss_change import LossChange
    from revacnn_lightning.client.prices import Prices
    from revacnn_lightning.client.run import Run
    from revacnn_lightning.client.svg import Figure
    from revacnn_lightning.client.trial import Trial
    from revacnn_lightning.diagnostics.verdicts import Verdict
    from revacnn_lightning.errors import (
        ConnectionFileError,
        EditFailedError,
        EditRefusedError,
        KeyRefusedError,
        MissingPackageError,
        ObserverKeyError,
        ProtocolError,
        ProtocolVersionError,
        RecordingError,
        RequestTimeoutError,
        RevacnnError,
        RunEndedError,
        StaleStructureError,
        SteeringError,
    )
    from revacnn_lightning.monitoring import monitor
    from revacnn_lightning.protocol.access_messages import KeyInfo
    from revacnn_lightning.protocol.alerts import Alert
    from revacnn_lightning.protocol.automatic_state import Proposal, PruningState
    from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
    from revacnn_lightning.protocol.connection_file import Connection
    from revacnn_lightning.protocol.evidence import LayerEvidence
    from revacnn_lightning.protocol.inspections import (
        FilterInspection,
        ImagePass,
        LayerDetail,
        PreferredImage,
    )
    from revacnn_lightning.protocol.messages import (
        Applied,
        History,
        LayerInfo,
        PlanSummary,
        Snapshot,
        Status,
        Structure,
    )
    from revacnn_lightning.protocol.rank_messages import RankValues
    from revacnn_lightning.protocol.requests import (
        AddFilters,
        ControlPruning,
        ControlRun,
        DiscardTrial,
        Freeze,
        InsertLayer,
        KeepTrial,
        MergeFilters,
        Patch,
        PruneTo,
        Redo,
        Reinitialize,
        RemoveFilters,
        RemoveLayer,
        ScaleLearningRate,
        SetFilter,
        SetGradientClipping,
        SetHyperparameter,
        SetPolicy,
        StartRecording,
        StopRecording,
        TryEdits,
        Undo,
        Unfreeze,
    )
    from revacnn_lightning.protocol.trial_state import TrialCost, TrialState
    from revacnn_lightning.runtime.loop_run import LoopRun
    from revacnn_lightning.runtime.request_queue import PendingRequest
    from revacnn_lightning.steering.loading import load_edited

# module -> the public names that are imported from it
_PUBLIC = {
    "callback": ["ReVACNN"],
    "client.attach": ["attach"],
    "client.batch": ["Batch"],
    "client.batch_stream": ["BatchStream"],
    "client.embedded_viewer": ["EmbeddedViewer", "show"],
    "client.loss_change": ["LossChange"],
    "client.prices": ["Prices"],
    "client.run": ["Run"],
    "client.svg": ["Figure"],
    "client.trial": ["Trial"],
    "diagnostics.verdicts": ["Verdict"],
    "errors": [
        "ConnectionFileError",
        "EditFailedError",
        "EditRefusedError",
        "KeyRefusedError",
        "MissingPackageError",
        "ObserverKeyError",
        "ProtocolError",
        "ProtocolVersionError",
        "RecordingError",
        "RequestTimeoutError",
        "RevacnnError",
        "RunEndedError",
        "StaleStructureError",
        "SteeringError",
    ],
    "protocol.access_messages": ["KeyInfo"],
    "protocol.alerts": ["Alert"],
    "protocol.automatic_state": ["Proposal", "PruningState"],
    "protocol.class_lens": ["ClassAnswers", "ClassLens", "Confusion"],
    "protocol.connection_file": ["Connection"],
    "protocol.evidence": ["LayerEvidence"],
    "protocol.inspections": ["FilterInspection", "ImagePass", "LayerDetail", "PreferredImage"],
    "protocol.messages": [
        "Applied",
        "History",
        "LayerInfo",
        "PlanSummary",
        "Snapshot",
        "Status",
        "Structure",
    ],
    "protocol.rank_messages": ["RankValues"],
    "protocol.requests": [
        "AddFilters",
        "ControlPruning",
        "ControlRun",
        "DiscardTrial",
        "Freeze",
        "InsertLayer",
        "KeepTrial",
        "MergeFilters",
        "Patch",
        "PruneTo",
        "Redo",
        "Reinitialize",
        "RemoveFilters",
        "RemoveLayer",
        "ScaleLearningRate",
        "SetFilter",
        "SetGradientClipping",
        "SetHyperparameter",
        "SetPolicy",
        "StartRecording",
        "StopRecording",
        "TryEdits",
        "Undo",
        "Unfreeze",
    ],
    "protocol.trial_state": ["TrialCost", "TrialState"],
    "monitoring": ["monitor"],
    "runtime.loop_run": ["LoopRun"],
    "runtime.request_queue": ["PendingRequest"],
    "steering.loading": ["load_edited"],
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _PUBLIC.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
