"""Private names of dependencies are used only if ``docs/private_names.md`` lists them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.import_graph import ROOT, find_modules

PACKAGES = ("revacnn_lightning", "viewer")
ACCESSORS = {"getattr", "hasattr", "setattr"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def own_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a file defines: functions, classes, variables and attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            yield node.attr


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Yield the parts of every name that a file imports from outside the project."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not is_ours(node.module):
            yield from node.module.split(".")
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from alias.name.split(".")


def is_ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES


def accessed_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names of all attributes, also of those that a string names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ACCESSORS:
            name = node.args[1]
            if isinstance(name, ast.Constant):
                yield name.value


def private_names_of_dependencies(*sources: str) -> set[str]:
    trees = [ast.parse(source) for source in sources]
    own = {name for tree in trees for name in own_names(tree)}
    accessed = {name for tree in trees for name in accessed_names(tree)} - own
    imported = {name for tree in trees for name in imported_names(tree)}
    return {name for name in accessed | imported if is_private(name)}


def listed_names(document: Path) -> set[str]:
    rows = re.findall(r"^\| (`_.*?) \|", document.read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_list_of_private_names_is_complete_and_current() -> None:
    files = [file for package in PACKAGES for file in find_modules(package).values()]
    used = private_names_of_dependencies(*(file.read_text() for file in files))
    assert used == listed_names(ROOT / "docs" / "private_names.md")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch._C.f()", {"_C"}),
        ("from torch.utils._pytree import tree_map", {"_pytree"}),
        ("from torch.nn.modules.conv import _ConvNd", {"_ConvNd"}),
        ("getattr(node, '_saved_pad', None)", {"_saved_pad"}),
        ("class A:\n    def f(self):\n        self._x = 1\n        return self._x", set()),
        ("def _f(): ...\nmodule.__name__", set()),
    ],
)
def test_a_private_name_is_found_wherever_it_is_used(source: str, found: set[str]) -> None:
    assert private_names_of_dependencies(source) == found
