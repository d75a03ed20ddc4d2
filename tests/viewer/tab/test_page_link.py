"""The model that a tab and the server share."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import pytest
from bokeh.document import Document
from bokeh.model import DataModel, Model

from viewer.tab.page_assets import STATIC
from viewer.tab.page_link import PageCommand, PageLink, decode_command


def test_both_ends_have_the_same_properties() -> None:
    script = (STATIC / "shared" / "link.js").read_text(encoding="utf-8")
    typedef = script.split("@typedef {object} PageLink")[1].split("*/")[0]
    there = set(re.findall(r"@property \{[^}]+\} (\w+)", typedef))
    assert there == set(PageLink.properties()) - set(DataModel.properties())
    assert issubclass(PageLink, Model)


def test_the_document_defines_the_model_for_the_browser() -> None:
    """So that BokehJS builds it, without a script of ours."""
    document = Document()
    document.add_root(PageLink(name="link", frame=(0, b"frame")))
    (definition,) = document.to_json(deferred=False)["defs"]
    assert definition["name"].endswith("PageLink")
    assert {one["name"] for one in definition["properties"]} >= {"frame", "seen", "command"}


def test_a_command_is_decoded() -> None:
    text = json.dumps({"serial": 3, "name": "toggle_layer_expanded", "args": {"layer": 1}})
    assert decode_command(text) == PageCommand("toggle_layer_expanded", {"layer": 1}, 3)
    assert decode_command('{"name": "undo", "serial": 4, "more": 1}') == PageCommand("undo", {}, 4)


@pytest.mark.parametrize("text", ["", "[]", '{"name": 3}', '{"name": "undo", "args": []}'])
def test_an_invalid_command_is_ignored_with_a_warning(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert decode_command(text) is None
    assert "invalid command" in caplog.text


def test_two_copies_of_the_viewer_can_share_a_server(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """One as a clone's folder, one as an installed package."""
    code = (
        "import sys, shutil, warnings, pathlib; warnings.simplefilter('error')\n"
        "import viewer.tab.page_link as a\n"
        "folder = pathlib.Path(a.__file__).parents[1]\n"
        f"shutil.copytree(folder, {str(tmp_path / 'other')!r})\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import other.tab.page_link as b\n"
        "from bokeh.document import Document\n"
        "for link in (a.PageLink(), b.PageLink()):\n"
        "    document = Document(); document.add_root(link); document.to_json()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
