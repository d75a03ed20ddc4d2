"""The documentation, its Python code and its shell commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

__all__ = ["DOCUMENTS", "ROOT", "CodeBlock", "python_blocks", "shell_commands"]

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
SHELL = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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


def shell_commands(document: Path, prefix: str) -> Iterator[str]:
    """Iterate over the shell commands of a document that begin with a prefix and a space.

    They are lines of shell blocks, without comments, and code between backticks.
    """
    text = document.read_text(encoding="utf-8")
    lines = [line for block in SHELL.findall(text) for line in block.splitlines()]
    for line in [*lines, *INLINE.findall(SHELL.sub("", text))]:
        command = COMMENT.sub("", line.strip())
        if command.startswith(f"{prefix} "):
            yield command
