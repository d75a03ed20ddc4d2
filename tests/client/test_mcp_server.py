"""The tools over the Model Context Protocol."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from revacnn_lightning import MissingPackageError
from revacnn_lightning.client.mcp_server import create_mcp_server
from revacnn_lightning.client.tools import Toolbox

ROOT = Path(__file__).parents[2]


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MissingPackageError, match=r"revacnn-lightning\[mcp\]"):
        create_mcp_server(Toolbox())


def test_the_command_says_it_too():
    code = "import sys; sys.modules['mcp'] = None\nfrom revacnn_lightning.cli import main\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(main(['mcp']))"],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'revacnn-lightning[mcp]'" in done.stderr
    assert done.stdout == ""


def with_client(server: Any, use: Any) -> Any:
    mcp = pytest.importorskip("mcp")

    async def run() -> Any:
        async with mcp.Client(server) as client:
            return await use(client)

    return asyncio.run(run())


async def list_and_call(client: Any) -> tuple:
    listed = (await client.list_tools()).tools
    good = await client.call_tool("list_runs", {})
    bad = await client.call_tool("get_status", {})
    return listed, good, bad


def check(listed: list, good: Any, bad: Any) -> None:
    assert {tool.name for tool in listed} == set(Toolbox().tools)
    assert all(tool.annotations.read_only_hint for tool in listed)
    assert not good.is_error
    assert json.loads(good.content[0].text) == []
    assert bad.is_error
    assert "no training is running" in bad.content[0].text


def test_tools_are_listed_and_called():
    pytest.importorskip("mcp")
    check(*with_client(create_mcp_server(Toolbox()), list_and_call))


def test_the_command_serves_on_standard_input_and_output():
    mcp = pytest.importorskip("mcp")
    server = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "revacnn_lightning", "mcp"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    check(*with_client(server, list_and_call))
