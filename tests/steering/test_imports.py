"""Imports inside steering go from execution to planning to tracing, without cycles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "revacnn_lightning"
PREFIX = "revacnn_lightning.steering"
# A folder may import from the folders and modules named here.
MAY_IMPORT = {
    "tracing": {"tracing", "computed_tensors"},
    "planning": {"tracing", "planning", "blocks", "computed_tensors"},
    "holders": {"planning", "holders", "computed_tensors"},
    "execution": {
        "tracing",
        "planning",
        "holders",
        "execution",
        "blocks",
        "computed_tensors",
        "filter_ids",
    },
}


def imported_modules(path: Path) -> set[str]:
    """Return the modules of the steering package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PREFIX}."):
            assert node.module is not None
            module = node.module.removeprefix(f"{PREFIX}.")
            for alias in node.names:
                name = f"{module}.{alias.name}"
                is_module = (PACKAGE / "steering" / f"{name.replace('.', '/')}.py").exists()
                found.add(name if is_module else module)
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folders_import_downward_only(folder: str) -> None:
    for path in (PACKAGE / "steering" / folder).rglob("*.py"):
        for module in imported_modules(path):
            assert module.split(".")[0] in MAY_IMPORT[folder], f"{path} imports {module}"


def test_there_are_no_import_cycles() -> None:
    graph = {}
    for path in (PACKAGE / "steering").rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE / "steering").with_suffix("").parts)
        graph[name] = imported_modules(path)
    while leaves := {name for name, imported in graph.items() if not imported & graph.keys()}:
        graph = {name: imported for name, imported in graph.items() if name not in leaves}
    assert not graph
