"""Keeps many short trainings from logging about each of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_training"]


@contextmanager
def quiet_training() -> Iterator[None]:
    """Let Lightning and ReVACNN log nothing but errors."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "revacnn_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
