"""The root of the package is its API: what it exports, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import revacnn_lightning

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "revacnn_lightning"

# The floors of the house, lowest first: a module may import from its own floor's room and below.
MAY_IMPORT = {
    "errors": set(),
    "protocol": {"errors"},
    "telemetry": {"errors"},
    "diagnostics": {"errors"},
    "steering": {"errors", "protocol", "telemetry"},
}
FOREIGN = {
    "protocol": {"torch", "pytorch_lightning", "lightning", "bokeh"},
    "telemetry": {"pytorch_lightning", "lightning", "zmq", "bokeh"},
    "steering": {"pytorch_lightning", "lightning", "zmq", "bokeh"},
}


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_every_public_name_can_be_imported():
    for name in revacnn_lightning.__all__:
        assert getattr(revacnn_lightning, name).__name__ == name


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        revacnn_lightning.Nothing  # noqa: B018


def test_importing_the_package_or_the_wire_loads_neither_torch_nor_lightning():
    code = (
        "import sys, revacnn_lightning, revacnn_lightning.cli\n"
        "from revacnn_lightning import attach, Run\n"
        "from revacnn_lightning.protocol import client, sockets, messages, requests\n"
        "heavy = {'torch', 'pytorch_lightning', 'lightning', 'bokeh'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    assert _run(code).strip() == "[]"


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_go_downward_only(room: str):
    files = [PACKAGE / f"{room}.py"] if room == "errors" else (PACKAGE / room).rglob("*.py")
    for file in files:
        for name in _imports(file):
            if name.startswith("revacnn_lightning."):
                other = name.split(".")[1]
                assert other == room or other in MAY_IMPORT[room], f"{file} imports {name}"
            assert name.split(".")[0] not in FOREIGN.get(room, set()), f"{file} imports {name}"


def test_only_the_callback_imports_lightning_and_only_the_sockets_import_zmq():
    users = {"pytorch_lightning": set(), "lightning": set(), "zmq": set()}
    for file in PACKAGE.rglob("*.py"):
        for name in _imports(file):
            if name.split(".")[0] in users:
                users[name.split(".")[0]].add(file.relative_to(PACKAGE).as_posix())
    assert users["zmq"] == {"protocol/sockets.py"}
    assert users["pytorch_lightning"] | users["lightning"] == {"callback.py"}


def test_the_viewer_imports_neither_torch_nor_lightning():
    for file in (ROOT / "viewer").rglob("*.py"):
        assert not {name.split(".")[0] for name in _imports(file)} & {
            "torch",
            "torchvision",
            "pytorch_lightning",
            "lightning",
        }, file


def test_nothing_is_ever_pickled_or_evaluated():
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "viewer").rglob("*.py")]:
        tree = ast.parse(file.read_text())
        calls = {node.func.id for node in ast.walk(tree) if _is_plain_call(node)}
        assert not calls & {"eval", "exec"}, file
        assert not {name.split(".")[0] for name in _imports(file)} & {"pickle", "dill", "shelve"}


def _is_plain_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
