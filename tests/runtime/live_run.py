"""A real training that a client in another thread monitors and stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytorch_lightning as pl

from revacnn_lightning import ConnectionFileError, ControlRun, ReVACNN, Run, attach
from tests.small import TwoConvs, fit


def attach_when_it_runs(client: Callable[[Run], dict]) -> dict:
    """Attach to the run that is about to start, and return the result of ``client(run)``."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            run = attach(timeout=60)
        except ConnectionFileError:
            time.sleep(0.05)
            continue
        with run:
            try:
                return client(run)
            finally:
                run.request(ControlRun("stop"))  # also after a failure, or training never ends
    raise AssertionError("the training did not start in time")


def collect_until(poll: Callable[[], list], count: int, seconds: float = 240) -> list:
    """Collect what ``poll`` returns until there are ``count`` items."""
    found: list = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {found} within {seconds} s"
        found += poll()
        time.sleep(0.01)
    return found


def train_with(
    client: Callable[[Run], dict],
    root: Path,
    model: pl.LightningModule | None = None,
    **options: object,
) -> tuple[dict, pl.Trainer]:
    """Train until ``client(run)``, in another thread, stops the run; return its result."""
    with ThreadPoolExecutor(1) as executor:
        result = executor.submit(attach_when_it_runs, client)
        every = {"count": 4, "max_epochs": 10_000, "default_root_dir": root, **options}
        trainer = fit(model or TwoConvs(), [ReVACNN()], **every)
        return result.result(), trainer
