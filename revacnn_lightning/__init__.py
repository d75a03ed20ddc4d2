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
    "ClassAnswers",
    "ClassLens",
    "Confusion",
    "ConnectionFileError",
    "ControlPruning",
    "ControlRun",
    "DiscardTrial",
    "EditFailedError",
    "EditRefusedError",
    "FilterInspection",
    "Freeze",
    "History",
    "ImagePass",
    "InsertLayer",
    "KeepTrial",
    "KeyRefusedError",
    "LayerDetail",
    "LayerEvidence",
    "LoopRun",
    "MergeFilters",
    "MissingPackageError",
    "ObserverKeyError",
    "Patch",
    "PlanSummary",
    "ProtocolError",
    "ProtocolVersionError",
    "PruneTo",
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
    "SetFilter",
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
    "TryEdits",
    "Undo",
    "Unfreeze",
    "attach",
    "load_edited",
    "monitor",
    "show",
]

if TYPE_CHECKING:
    from revacnn_lightning.callback import ReVACNN
    from revacnn_lightning.client.attach import attach
    from revacnn_lightning.client.batch import Batch
    from revacnn_lightning.client.embedded_viewer import show
    from revacnn_lightning.client.run import Run
    from revacnn_lightning.client.trial import Trial
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
    from revacnn_lightning.protocol.alerts import Alert
    from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
    from revacnn_lightning.protocol.evidence import LayerEvidence
    from revacnn_lightning.protocol.inspections import FilterInspection, ImagePass, LayerDetail
    from revacnn_lightning.protocol.messages import (
        Applied,
        History,
        PlanSummary,
        Snapshot,
        Status,
        Structure,
    )
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
        SetFilter,
        SetHyperparameter,
        SetPolicy,
        StartRecording,
        StopRecording,
        TryEdits,
        Undo,
        Unfreeze,
    )
    from revacnn_lightning.runtime.loop_run import LoopRun
    from revacnn_lightning.steering.loading import load_edited

# module -> the public names that are imported from it
_PUBLIC = {
    "callback": ["ReVACNN"],
    "client.attach": ["attach"],
    "client.batch": ["Batch"],
    "client.embedded_viewer": ["show"],
    "client.run": ["Run"],
    "client.trial": ["Trial"],
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
    "protocol.class_lens": ["ClassAnswers", "ClassLens", "Confusion"],
    "protocol.evidence": ["LayerEvidence"],
    "protocol.inspections": ["FilterInspection", "ImagePass", "LayerDetail"],
    "protocol.alerts": ["Alert"],
    "protocol.messages": [
        "Applied",
        "History",
        "PlanSummary",
        "Snapshot",
        "Status",
        "Structure",
    ],
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
        "SetFilter",
        "SetHyperparameter",
        "SetPolicy",
        "StartRecording",
        "StopRecording",
        "TryEdits",
        "Undo",
        "Unfreeze",
    ],
    "monitoring": ["monitor"],
    "runtime.loop_run": ["LoopRun"],
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
