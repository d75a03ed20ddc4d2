"""The page of the wire protocol is current, and enough to write a client from."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from revacnn_lightning.client.run import Run
from revacnn_lightning.protocol import connection_file, messages
from revacnn_lightning.protocol.inspection_requests import Viewing
from revacnn_lightning.protocol.requests import RequestBody, SendHistory, TryEdits
from tests.runtime.live_run import train_with
from tests.static.test_script import find_node

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "protocol.md"
CLIENT = Path(__file__).parent / "page_client.js"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """The script that generates the page's tables."""
    spec = importlib.util.spec_from_file_location(
        "protocol_tables", PAGE.parent / "protocol_tables.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_structs(tables: ModuleType):
    page = PAGE.read_text(encoding="utf-8")
    assert tables.render(page) == page, "run python docs/protocol_tables.py"


def test_every_message_and_request_is_on_the_page(tables: ModuleType):
    page = PAGE.read_text(encoding="utf-8")
    for kind in (*get_args(RequestBody), *get_args(messages.Message)):
        name = tables.wire_name(kind)
        heading = f"`{name}`\n" if kind is not messages.Request else "## Requests"
        assert heading in page, name


def test_messages_are_named_by_their_topics_not_by_modules_of_python():
    assert re.findall(r"`[a-z_]+\.[A-Z]\w+`", PAGE.read_text(encoding="utf-8")) == []


def test_what_an_observer_may_send_is_on_the_page():
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    [row] = [row for row in rows if row.startswith("| `observer`")]
    requests = {kind.__name__ for kind in get_args(RequestBody)}
    named = {name for name in requests if f"`{name}`" in row}
    inspections = {name for name in requests if name.startswith("Inspect")}
    assert "begins with `Inspect`" in row
    permitted = {kind.__name__ for kind in (*get_args(Viewing), SendHistory, TryEdits)}
    assert named | inspections == permitted


def test_every_field_has_a_meaning_or_a_name_that_says_it(tables: ModuleType):
    """Those without a comment are explained by the text above their table."""
    comments = tables.comments_of(messages.Snapshot)
    assert comments["batches_per_epoch"] == "0 if unknown"
    assert comments["sampling_intervals"].startswith("Per statistic, the number of batches")


def find_zeromq() -> str:
    """Return node, where it has ZeroMQ and MessagePack (`npm ci` installs them)."""
    node = find_node()
    code = "require('zeromq'); require('@msgpack/msgpack')"
    if subprocess.run([node, "-e", code], cwd=ROOT, capture_output=True).returncode:
        if os.environ.get("REVACNN_REQUIRE_NODE"):
            pytest.fail("npm ci installs ZeroMQ for node, which is required to test the protocol")
        pytest.skip("no ZeroMQ for node: npm ci")
    return node


def test_a_client_in_javascript_is_written_from_the_page(tmp_path: Path):
    """It monitors, edits and controls a training, and finds all it receives on the page."""
    node = find_zeromq()

    def client(run: Run) -> dict:
        file = connection_file.write(run.connection, tmp_path / "run.json")
        done = subprocess.run(
            [node, CLIENT, file, PAGE], capture_output=True, text=True, timeout=240, cwd=ROOT
        )
        return {"code": done.returncode, "output": done.stdout + done.stderr}

    result, _ = train_with(client, tmp_path)
    assert result["code"] == 0, result["output"]
    checked = set(result["output"].split())
    assert {
        "connection", "structure", "snapshot", "status", "layer_detail", "filter_inspection",
        "planned", "applied", "done", "refused",
    } <= checked  # fmt: skip
