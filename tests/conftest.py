"""Fixtures that apply to every test."""

from __future__ import annotations

import signal
from pathlib import Path

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
