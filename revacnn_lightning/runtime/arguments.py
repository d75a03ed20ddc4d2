"""Checks the arguments of `ReVACNN` before a training starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from revacnn_lightning.telemetry import STATISTICS
from revacnn_lightning.telemetry.layer_selection import LayerChoice

__all__ = ["check_arguments", "seconds_between_snapshots"]

MAX_NAME = 80  # characters of a run's name
EVERY_BATCH = "every batch"
RATE = re.compile(r"(\d+(?:\.\d+)?) ?Hz")  # "10 Hz"
MIN_RATE, MAX_RATE = 0.01, 1000.0  # Hz


def check_arguments(
    ports: Sequence[int],
    statistics: Sequence[str],
    max_overhead: float | None,
    name: str | None = None,
    keep_batches: int = 0,
    class_names: Sequence[str] | None = None,
    layers: LayerChoice = None,
    publish: str = EVERY_BATCH,
) -> None:
    """Raise ValueError if one of these arguments of `ReVACNN` or `monitor` is invalid."""
    for port in ports:
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is out of range 0 to 65535; 0 picks a free port")
    unknown = set(statistics) - set(STATISTICS)
    if unknown:
        raise ValueError(f"unknown statistics {sorted(unknown)}; choose of {list(STATISTICS)}")
    if max_overhead is not None and not 0 < max_overhead <= 1:
        raise ValueError(
            f"max_overhead must be a share between 0 and 1, not {max_overhead}; 0.03 means 3 %"
        )
    if keep_batches < 0:
        raise ValueError(f"keep_batches must not be negative, and is {keep_batches}; 0 keeps none")
    if class_names is not None and not _are_names(class_names):
        raise ValueError(
            "class_names must be the names of the classes as a list of strings, one for each "
            f"output of the network, not {class_names!r:.80}"
        )
    _check_layers(layers)
    seconds_between_snapshots(publish)
    if name is not None and not _is_valid_name(name):
        raise ValueError(
            f"name must be one line of 1 to {MAX_NAME} printable characters, not {name!r}; choose "
            "a shorter one, or leave it out"
        )


def seconds_between_snapshots(publish: str) -> float:
    """Return the seconds between two snapshots: 0.1 for ``"10 Hz"``, 0 for ``"every batch"``.

    Raises:
        ValueError: ``publish`` is neither of these.
    """
    if publish == EVERY_BATCH:
        return 0.0
    match = RATE.fullmatch(publish) if isinstance(publish, str) else None
    if match is None or not MIN_RATE <= float(match[1]) <= MAX_RATE:
        raise ValueError(
            f'publish must be "{EVERY_BATCH}" or a rate from {MIN_RATE:g} to {MAX_RATE:g} Hz, such '
            f'as "10 Hz", not {publish!r:.80}'
        )
    return 1 / float(match[1])


def _check_layers(layers: Any) -> None:
    if layers is None or isinstance(layers, str):
        is_choice = layers in (None, "conv", "all")
    else:
        is_list = isinstance(layers, Sequence) and len(layers) > 0
        is_choice = is_list and all(isinstance(pattern, str) for pattern in layers)
    if not is_choice:
        raise ValueError(
            f'layers must be "conv", "all" or a list of names and patterns, not {layers!r}; leave '
            "it out for all convolutions and the hidden linear layers behind them"
        )


def _is_valid_name(name: Any) -> bool:
    is_line = isinstance(name, str) and name.isprintable() and bool(name.strip())
    return is_line and len(name) <= MAX_NAME


def _are_names(names: Any) -> bool:
    is_list = isinstance(names, Sequence) and not isinstance(names, str | bytes)
    return is_list and len(names) > 0 and all(isinstance(name, str) for name in names)
