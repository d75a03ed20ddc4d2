"""What the tests that are marked ``browser`` share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import chromium as browsers

PATIENCE = 90_000  # milliseconds; machines that run tests may be busy
expect.set_options(timeout=PATIENCE)

# What the browser and Bokeh say when a test ends their server, perhaps in the middle of a message;
# not an error of the page.
LOST = re.compile(
    r"websocket|ERR_CONNECTION|cannot send|Closing connection: .* fragment", re.IGNORECASE
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One headless Chromium for all tests."""
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    """Opens pages of a fresh profile, and fails the test on any error in them."""
    contexts, errors = [], []

    def note(kind: str, text: str) -> None:
        if kind == "error" and not LOST.search(text):
            errors.append(text)

    def open_page(address: str, script: str = "", **options: Any) -> Any:
        options.setdefault("viewport", {"width": 1400, "height": 860})
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(script)  # runs before all others
        page.on("pageerror", lambda error: note("error", str(error)))
        page.on("console", lambda message: note(message.type, message.text))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
