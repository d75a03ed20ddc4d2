"""Fixtures that apply to every test."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Shells start background jobs with SIGINT ignored. Processes that tests start and interrupt would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the connection files of tests apart from those of the user."""
    directory = tmp_path / "runtime"
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(directory))
    return directory


@pytest.fixture(autouse=True)
def _detach_recorders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Detach what a test has left attached: some hooks of a recorder are global.

    Without torch, as in tests of the viewer alone, there is no recorder.
    """
    module = sys.modules.get("revacnn_lightning.telemetry.recording.recorder")
    if module is None:
        yield
        return
    attach, attached = module.Recorder.attach, []

    def attach_and_note(recorder: Any, *args: Any, **options: Any) -> None:
        attached.append(recorder)
        attach(recorder, *args, **options)

    monkeypatch.setattr(module.Recorder, "attach", attach_and_note)
    yield
    for recorder in attached:
        recorder.detach()
