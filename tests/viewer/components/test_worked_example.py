"""The panel that CONTRIBUTING.md adds as an example, on both sides of the page."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from tests.documentation import ROOT, blocks_of, example_of
from tests.static.test_script import find_node
from viewer.tab.tab_state import TabState

PAGE = """
const places = {"dead-filters": {textContent: ""}}
const byId = id => places[id]
let draw
const subscribe = (part, function_) => { if (part === "dead_filters") draw = function_ }
startDeadFilters()
draw(%s)
console.log(byId("dead-filters").textContent)
"""


def test_the_panel_counts_dead_filters(tab: TabState, monkeypatch: pytest.MonkeyPatch):
    panel = example_of("DeadFilters")(tab)
    monkeypatch.setattr(tab.playback, "dead_mask", lambda state: np.array([True, False, True]))
    assert panel.update() is True
    assert panel.source.data == {"text": "2 dead filters"}
    assert panel.update() is False


def test_the_script_of_the_panel_shows_the_text():
    [script] = blocks_of(ROOT / "CONTRIBUTING.md", "js")
    data = json.dumps({"text": "2 dead filters"})
    done = subprocess.run(
        [find_node(), "--input-type=module", "--eval", script + PAGE % data],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout == "2 dead filters\n", done.stderr
