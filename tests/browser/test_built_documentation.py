"""The built documentation is accessible and loads nothing from another host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_accessibility import violations
from tests.documentation import ROOT

pytestmark = pytest.mark.browser

# One page of each kind: pictures, tabs, tables, generated reference, and long tables.
PAGES = ("index", "quickstart", "views/network", "comparison", "api", "protocol")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_need_no_other_host(
    site: Path, chromium: Any, scheme: str
) -> None:
    page = chromium.new_page(color_scheme=scheme)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        assert violations(page) == [], name
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    page.close()
