"""Hooks of mkdocs: docstrings are shown as Markdown, and a page loads nothing from another host.

A warning fails the build, because ``make docs`` is strict.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.plugins.hosts")

# What a browser loads by itself; links that a reader follows may lead anywhere.
LOADED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=\"?(https?:)?//[^>]*>")
IMPORTED = re.compile(r"(?:@import\s+|url\()[\"']?(?:https?:)?//[^)\"']+")


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Show the ``::`` of docstrings, before a block of code, as a colon."""
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Warn about elements that another host would serve."""
    for match in LOADED.finditer(output):
        if 'rel="canonical"' not in match[0]:
            log.warning("%s loads from another host: %s", page.file.src_uri, match[0][:200])
    return output


def on_post_build(config: Any) -> None:
    """Warn about style sheets that load from another host."""
    for sheet in Path(config["site_dir"]).rglob("*.css"):
        for match in IMPORTED.finditer(sheet.read_text(encoding="utf-8")):
            log.warning("%s loads from another host: %s", sheet.name, match[0][:200])
