"""Numbers out of a running model: needs torch and numpy, knows neither Lightning nor sockets."""

from revacnn_lightning.telemetry.recorder import DEFAULT, STATISTICS, Recorder, Recording

__all__ = ["DEFAULT", "STATISTICS", "Recorder", "Recording"]
