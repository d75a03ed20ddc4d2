"""Numbers out of a running model: needs torch and numpy, knows neither Lightning nor sockets."""

from revacnn_lightning.telemetry.detail import Detail, Packed
from revacnn_lightning.telemetry.recorder import Recorder, Recording
from revacnn_lightning.telemetry.statistics import DEFAULT, STATISTICS

__all__ = ["DEFAULT", "STATISTICS", "Detail", "Packed", "Recorder", "Recording"]
