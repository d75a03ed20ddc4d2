"""What every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Connection files of tests lie apart from those of the person who runs them."""
    directory = tmp_path / "runtime"
    monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(directory))
    return directory
