"""What every test may use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A test run in the background may have been started with Ctrl-C ignored, which the processes that
# tests start, and end by Ctrl-C, would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Connection files of tests lie apart from those of the person who runs them."""
    directory = tmp_path / "runtime"
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(directory))
    return directory
