"""The documentation, its Python code and its shell commands."""

from __future__ import annotations
import __future__

import builtins
import dis
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import CodeType
from typing import Any, NamedTuple

__all__ = [
    "DOCUMENTS",
    "ROOT",
    "CodeBlock",
    "blocks_of",
    "compile_block",
    "example_of",
    "python_blocks",
    "run_addition",
    "shell_commands",
    "shell_lines",
    "undefined_names",
]

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

PYTHON = re.compile(
    r"(?:^ *<!-- (?P<kind>excerpt|in): (?P<note>[^\n]+) -->\n\s*)?"
    r"^(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
COMMENT = re.compile(r"\s+#\s.*")


class CodeBlock(NamedTuple):
    """A block of Python code.

    Attributes:
        line: its first one in the document, from 1.
        excerpt: why it cannot be run alone; "" if it can.
        module: the module that it is an addition to; "" if it is code of a user.
    """

    code: str
    line: int
    excerpt: str
    module: str


def python_blocks(document: Path) -> list[CodeBlock]:
    """Return the Python blocks of a document in their order.

    A comment ``<!-- excerpt: reason -->`` before a block says why it is not run, a comment
    ``<!-- in: module -->`` that it is run with the names of this module.
    """
    text = document.read_text(encoding="utf-8")
    return [_block(text, match) for match in PYTHON.finditer(text)]


def _block(text: str, match: re.Match[str]) -> CodeBlock:
    notes = {match["kind"]: match["note"]}
    line = text.count("\n", 0, match.start("code")) + 1
    return CodeBlock(dedent(match["code"]), line, notes.get("excerpt", ""), notes.get("in", ""))


def compile_block(block: CodeBlock, document: Path) -> CodeType:
    """Return the code of a block. Its errors name the document and the line."""
    flags = __future__.annotations.compiler_flag if block.module else 0
    lines = "\n" * (block.line - 1) + block.code
    return compile(lines, str(document), "exec", flags, dont_inherit=True)


def run_addition(block: CodeBlock, document: Path) -> dict[str, Any]:
    """Run an addition to a module in a copy of it, and return the names of that copy."""
    names = {**vars(import_module(block.module)), "__name__": "__main__"}
    code = compile_block(block, document)
    exec(code, names)
    undefined = undefined_names(code, names)
    assert not undefined, f"{document.name}:{block.line}: {undefined} are in no import"
    return names


def example_of(name: str) -> Any:
    """Return what a block of CONTRIBUTING.md defines as an addition to a module."""
    document = ROOT / "CONTRIBUTING.md"
    [block] = [
        one
        for one in python_blocks(document)
        if one.module and re.search(rf"^(?:class|def) {name}\b", one.code, re.MULTILINE)
    ]
    return run_addition(block, document)[name]


def undefined_names(code: CodeType, names: dict[str, Any]) -> set[str]:
    """Return the global names that ``code`` reads and neither ``names`` nor Python has.

    Running a block finds those of functions only where it calls them.
    """
    loaded = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {name for name in loaded if name not in names and not hasattr(builtins, name)}.union(
        *(undefined_names(one, names) for one in inner)
    )


def blocks_of(document: Path, language: str) -> list[str]:
    """Return the code of the blocks of a language."""
    fence = rf"^(?P<indent> *)```{language}\n(?P<code>.*?)^(?P=indent)```$"
    text = document.read_text(encoding="utf-8")
    found = re.finditer(fence, text, re.MULTILINE | re.DOTALL)
    return [dedent(match["code"]) for match in found]


def shell_lines(document: Path) -> list[str]:
    """Return the commands of the shell blocks of a document, without comments."""
    lines = "".join(blocks_of(document, "bash")).splitlines()
    return [COMMENT.sub("", line.strip()) for line in lines if line.strip()]


def shell_commands(document: Path, prefix: str) -> Iterator[str]:
    """Iterate over the shell commands of a document that begin with a prefix and a space.

    They are lines of shell blocks, without comments, and code between backticks.
    """
    text = FENCED.sub("", document.read_text(encoding="utf-8"))
    for command in [*shell_lines(document), *(one.strip() for one in INLINE.findall(text))]:
        if command.startswith(f"{prefix} "):
            yield command
