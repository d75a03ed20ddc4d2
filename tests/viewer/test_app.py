"""The Bokeh app is served from its folder, and under another name, as in the wheel."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from pathlib import Path

import pytest

from tests.viewer.processes import ROOT, page_request, server


@pytest.mark.parametrize("name", ["viewer", "_viewer"])
def test_page_is_served_completely_from_this_server(tmp_path: Path, name: str) -> None:
    folder = ROOT / "viewer"
    if name != "viewer":
        ignored = shutil.ignore_patterns("__pycache__")
        folder = Path(shutil.copytree(folder, tmp_path / "site" / name, ignore=ignored))
    with server(tmp_path, folder) as address:
        page = urllib.request.urlopen(page_request(address), timeout=60).read().decode()
        assert '<div id="app"' in page
        assert "No training yet" in page
        scripts = re.findall(r'<script[^>]* src="([^"]+)"', page)
        (listed,) = re.findall(r"const {version, files} = (.*)", page)
        files = json.loads(listed)["files"]
        assert {"network/node_worker.js", "network/path_worker.js"} <= set(files)
        for file in files:
            request = page_request(f"{address}/static/{file}")
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
                assert "javascript" in answer.headers["Content-Type"]
        host = address.rsplit("/", 1)[0]
        for script in scripts:
            assert not re.match(r"https?://", script) or script.startswith("http://localhost"), (
                script
            )
            url = script if script.startswith("http") else f"{host}/{script.lstrip('/')}"
            assert urllib.request.urlopen(page_request(url), timeout=60).status == 200
        assert not re.search(r"(href|src)=\"https?://(?!localhost)", page)
        for style in re.findall(r"<style>(.*?)</style>", page, re.DOTALL):
            assert "@import" not in style


def test_page_starts_with_the_theme_of_the_cookie(tmp_path: Path) -> None:
    with server(tmp_path) as address:
        for cookie, theme in (("light", "light"), ("<script>", "")):
            request = page_request(address)
            request.add_header("Cookie", f"{request.get_header('Cookie')}; revacnn-theme={cookie}")
            page = urllib.request.urlopen(request, timeout=60).read().decode()
            assert f'dataset.theme = "{theme}"' in page
