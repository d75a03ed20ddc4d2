"""The documentation names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md")
# Documents may omit the top-level package of a path.
FOLDERS = ("", "docs", "revacnn_lightning", "viewer")
PATHS = re.compile(r"(?:`|\]\()([\w./-]+(?:\.(?:py|md|html|json|toml|png)|/))[`)]")


def mentioned_paths(text: str) -> set[str]:
    """Return the paths in backticks that contain a slash, and the targets of links."""
    return {path for path in PATHS.findall(text) if "/" in path}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_mentioned_files_exist(document: str):
    paths = mentioned_paths((ROOT / document).read_text())
    assert paths
    missing = {
        path for path in paths if not any((ROOT / folder / path).exists() for folder in FOLDERS)
    }
    assert not missing
