"""The import graph of the repository's packages, without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def find_modules(package: str) -> dict[str, Path]:
    """Return the file of every module of a package."""
    modules = {}
    for file in (ROOT / package).rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return modules


@cache
def find_imports(module: str, file: Path) -> frozenset[str]:
    """Return the absolute names of everything a module imports: modules, and names in them.

    Imports for type checkers alone are ignored.
    """
    found: set[str] = set()
    parents = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in _executed_nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def build_import_graph(*packages: str) -> dict[str, set[str]]:
    """Return, per module, the modules of these packages that it imports."""
    modules = {name: file for package in packages for name, file in find_modules(package).items()}
    graph = {}
    for name, file in modules.items():
        imported = find_imports(name, file) & modules.keys() - {name}
        # `from package import module` imports the module; the package is only its path.
        graph[name] = {one for one in imported if not _is_path_only(one, imported, file, name)}
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return a cycle of the graph, or an empty list."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for imported in sorted(graph[module]):
                if cycle := visit(imported, [*path, module]):
                    return cycle
            done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def _is_path_only(module: str, imported: set[str], file: Path, importer: str) -> bool:
    """Return whether a package is imported only as the path of one of its modules."""
    if not any(other.startswith(f"{module}.") for other in imported):
        return False
    names = find_imports(importer, file)
    attributes = {name for name in names if name.rpartition(".")[0] == module}
    return attributes <= imported


def _executed_nodes(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        children: list[ast.AST] = [*node.orelse]
    else:
        children = list(ast.iter_child_nodes(node))
    yield node
    for child in children:
        yield from _executed_nodes(child)
