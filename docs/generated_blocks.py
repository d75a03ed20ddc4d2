"""Blocks of a page that a script writes: ``<!-- generated: name -->`` to ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["render", "table", "update"]

BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(text: str, blocks: Mapping[str, str]) -> str:
    """Return the text of a page with these blocks, by name. Other blocks stay as they are."""

    def block(match: re.Match[str]) -> str:
        content = blocks.get(match[2])
        return match[0] if content is None else f"{match[1]}\n{content}\n\n{match[3]}"

    return BLOCK.sub(block, text)


def update(page: Path, blocks: Mapping[str, str]) -> None:
    """Write these blocks into a page."""
    page.write_text(render(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table."""
    columns = list(columns)
    head, *body = (f"| {' | '.join(map(str, cells))} |" for cells in (columns, *rows))
    return "\n".join([head, "|---" * len(columns) + "|", *body])
