"""The Chromium that browser tests drive."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

# No GPU is needed or wanted, and nothing but the page is asked from the network.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def executable() -> str | None:
    """The system's Chromium, $CHROMIUM, or None: Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = (shutil.which(name) for name in names)
    return os.environ.get("CHROMIUM") or next((path for path in found if path), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with an empty profile. Skips the test if there is none and none is required."""
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
        except Error as error:
            if os.environ.get("REVACNN_REQUIRE_BROWSER"):
                raise
            pytest.skip(f"no Chromium to drive ({str(error).splitlines()[0]}); run: make browser")
        yield browser
        browser.close()
