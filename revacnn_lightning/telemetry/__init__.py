"""Numbers out of a running model: needs torch and numpy, knows neither Lightning nor sockets."""

from revacnn_lightning.telemetry.inspection.layer_detail import DetailSample, Packed
from revacnn_lightning.telemetry.recording.recorder import Recorder, Recording
from revacnn_lightning.telemetry.statistics import DEFAULT, STATISTICS

__all__ = ["DEFAULT", "STATISTICS", "DetailSample", "Packed", "Recorder", "Recording"]
