"""Checks the arguments of `ReVACNN` before a training starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from revacnn_lightning.telemetry import STATISTICS
from revacnn_lightning.telemetry.layer_selection import LayerChoice

__all__ = ["check_arguments"]

MAX_NAME = 80  # characters of a run's name


def check_arguments(
    ports: Sequence[int],
    statistics: Sequence[str],
    max_overhead: float | None,
    name: str | None = None,
    keep_batches: int = 0,
    layers: LayerChoice = None,
) -> None:
    """Raise ValueError if one of these arguments cannot be used."""
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
    if not _is_choice_of_layers(layers):
        raise ValueError(
            f'layers must be "conv", "all" or a list of names and patterns, not {layers!r}; leave '
            "it out for all convolutions and the hidden linear layers behind them"
        )
    if name is not None and not _is_valid_name(name):
        raise ValueError(
            f"name must be one line of 1 to {MAX_NAME} printable characters, not {name!r}; choose "
            "a shorter one, or leave it out"
        )


def _is_choice_of_layers(layers: Any) -> bool:
    if layers is None or isinstance(layers, str):
        return layers in (None, "conv", "all")
    is_list = isinstance(layers, Sequence) and len(layers) > 0
    return is_list and all(isinstance(pattern, str) for pattern in layers)


def _is_valid_name(name: Any) -> bool:
    is_line = isinstance(name, str) and name.isprintable() and bool(name.strip())
    return is_line and len(name) <= MAX_NAME
