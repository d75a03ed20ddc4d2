"""The unit tests of the page's script (``*.test.js`` here), run by Node's test runner."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def find_node() -> str:
    """Return the Node of this environment (the ``[dev]`` extra installs one), else the system's."""
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which("node", path=places)
    if found is None:
        if os.environ.get("REVACNN_REQUIRE_NODE"):
            pytest.fail("Node is required to test the page's script")
        pytest.skip("no Node: install the [dev] extra")
    return found


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("*.test.js")))
def test_script(file: str) -> None:
    node = find_node()
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", HERE / file],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout
    assert "# pass 0" not in done.stdout
