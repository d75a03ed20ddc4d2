"""Chromium for the tests that are marked ``browser``; they are skipped where there is none."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# What the browser says when a test ends its server; not an error of the page.
LOST = re.compile(r"websocket|ERR_CONNECTION|cannot send", re.IGNORECASE)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium: $REVACNN_CHROMIUM, or what is on the path, or Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = (
        os.environ.get("REVACNN_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
    )
    with playwright.sync_playwright() as driver:
        if found is None and not os.path.exists(driver.chromium.executable_path):
            pytest.skip("no Chromium on this machine (apt-get install chromium)")
        browser = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    """Opens pages of a fresh profile, and fails the test on any error in them."""
    contexts, errors = [], []

    def note(kind: str, text: str) -> None:
        if kind == "error" and not LOST.search(text):
            errors.append(text)

    def open_page(address: str, **options: Any) -> Any:
        options.setdefault("viewport", {"width": 1400, "height": 860})
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: note(message.type, message.text))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
