"""Statistics of a running model. Requires torch and numpy; knows neither Lightning nor sockets."""

from revacnn_lightning.telemetry.inspection.layer_detail import DetailSample
from revacnn_lightning.telemetry.recording.batch_recording import Recording
from revacnn_lightning.telemetry.recording.recorder import Recorder
from revacnn_lightning.telemetry.statistics import (
    DEFAULT_STATISTICS,
    REQUESTED_STATISTICS,
    STATISTICS,
)

__all__ = [
    "DEFAULT_STATISTICS",
    "REQUESTED_STATISTICS",
    "STATISTICS",
    "DetailSample",
    "Recorder",
    "Recording",
]
