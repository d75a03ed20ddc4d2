"""Files hold at most 300 lines; ``docs/architecture.md`` gives a reason for each exception."""

from __future__ import annotations

import re

from tests.import_graph import ROOT

MAX_LINES = 300
FOLDERS = ("revacnn_lightning", "viewer", "examples")
SUFFIXES = {".py", ".js", ".css", ".html"}


def long_files() -> set[str]:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.*")]
    sources = [file for file in files if file.suffix in SUFFIXES]
    return {
        file.relative_to(ROOT).as_posix()
        for file in sources
        if len(file.read_text().splitlines()) > MAX_LINES
    }


def test_long_files_are_those_with_a_reason() -> None:
    _, table = (ROOT / "docs" / "architecture.md").read_text().split("## Long files")
    assert long_files() == set(re.findall(r"^\| `([\w/]+\.\w+)` \|", table, re.MULTILINE))
