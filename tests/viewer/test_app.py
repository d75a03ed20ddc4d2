"""The Bokeh app is served from its folder, and under another name, as in the wheel."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from pathlib import Path

import pytest

from tests.viewer.processes import ROOT, server


@pytest.mark.parametrize("name", ["viewer", "_viewer"])
def test_page_is_served_completely_from_this_server(tmp_path: Path, name: str) -> None:
    folder = ROOT / "viewer"
    if name != "viewer":
        ignored = shutil.ignore_patterns("__pycache__")
        folder = Path(shutil.copytree(folder, tmp_path / "site" / name, ignore=ignored))
    with server(tmp_path, folder) as address:
        page = urllib.request.urlopen(address, timeout=60).read().decode()
        assert '<div id="app"' in page
        assert "No training yet" in page
        scripts = re.findall(r'<script[^>]* src="([^"]+)"', page)
        (listed,) = re.findall(r"const {version, files} = (.*)", page)
        files = json.loads(listed)["files"]
        assert {"main.js", "network/node_worker.js"} <= set(files)
        for file in files:
            with urllib.request.urlopen(f"{address}/static/{file}", timeout=60) as answer:
                assert answer.status == 200
                assert "javascript" in answer.headers["Content-Type"]
        host = address.rsplit("/", 1)[0]
        for script in scripts:
            assert not re.match(r"https?://", script) or script.startswith("http://localhost"), (
                script
            )
            url = script if script.startswith("http") else f"{host}/{script.lstrip('/')}"
            assert urllib.request.urlopen(url, timeout=60).status == 200
        assert not re.search(r"(href|src)=\"https?://(?!localhost)", page)
        assert "@import" not in page


def test_page_starts_with_the_theme_of_the_cookie(tmp_path: Path) -> None:
    with server(tmp_path) as address:
        request = urllib.request.Request(address, headers={"Cookie": "revacnn-theme=light"})
        page = urllib.request.urlopen(request, timeout=60).read().decode()
        assert 'dataset.theme = "light"' in page
        request = urllib.request.Request(address, headers={"Cookie": "revacnn-theme=<script>"})
        page = urllib.request.urlopen(request, timeout=60).read().decode()
        assert 'dataset.theme = ""' in page
