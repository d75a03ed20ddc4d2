"""What tests with a browser share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import chromium as browsers
from tests.viewer.processes import access_cookie, server, training

# The tests wait for events, not for a fast machine: it may be busy with something else.
PATIENCE = 180_000  # milliseconds
TEST_SECONDS = 900
expect.set_options(timeout=PATIENCE)

# Messages of the browser and of Bokeh when a test ends their server, perhaps amid a message: not
# errors of the page.
LOST = re.compile(
    r"websocket|ERR_CONNECTION|cannot send|Closing connection: .* (fragment|ACK)", re.IGNORECASE
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with a browser more time than others."""
    for item in items:
        if item.get_closest_marker("browser") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One headless Chromium for all tests."""
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a viewer of the digits network, for the tests of a file."""
    runtime = tmp_path_factory.mktemp("digits")
    with training(runtime, "--net", "digits", "--hz", "5"), server(runtime) as address:
        yield address


def wait_without_eval(page: Any) -> None:
    """Compile the conditions of ``wait_for_function`` once: the page's policy forbids eval.

    Playwright compiles each expression at the first check, which the policy does not concern, and
    again at all others. Functions are compiled once.
    """
    wait_for_function = page.wait_for_function

    def wait(expression: str, **options: Any) -> Any:
        value = f"const value = ({expression}\n)"
        called = f"(arg) => {{{value}; return typeof value === 'function' ? value(arg) : value}}"
        return wait_for_function(called, **options)

    page.wait_for_function = wait


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    """Open pages of a fresh profile; any error in them fails the test.

    The hints of a first visit are left out, unless the test passes ``first_visit=True``. Nodes
    rest, unless it passes ``reduced_motion="no-preference"``: drawing 60 frames per second keeps a
    processor busy.
    """
    contexts, errors = [], []

    def note(kind: str, text: str) -> None:
        if kind == "error" and not LOST.search(text):
            errors.append(text)

    def open_page(address: str, script: str = "", **options: Any) -> Any:
        options.setdefault("viewport", {"width": 1400, "height": 860})
        options.setdefault("reduced_motion", "reduce")
        is_first_visit = options.pop("first_visit", False)
        context = chromium.new_context(**options)
        context.add_cookies([{**access_cookie(address), "url": address}])
        if not is_first_visit:
            context.add_cookies([{"name": "revacnn-hints", "value": "dismissed", "url": address}])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        wait_without_eval(page)
        page.add_init_script(script)  # runs before all others
        page.on("pageerror", lambda error: note("error", str(error)))
        page.on("console", lambda message: note(message.type, message.text))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
