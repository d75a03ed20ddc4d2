"""The way from the image to the classes, in a real Chromium, with a simulated training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import ready
from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("ends")
    with training(runtime, "--net", "digits", "--hz", "5"), server(runtime) as address:
        yield address


def test_the_network_shows_the_input_the_classes_and_the_modules(
    address: str, open_page: Any
) -> None:
    page = ready(open_page(address, viewport={"width": 1680, "height": 960}))
    expect(page.locator(".output")).to_have_count(10)
    expect(page.locator(".output[data-predicted=true] .name")).to_have_text("cat")
    expect(page.locator(".output[data-true=true] .name")).to_have_text("dog")
    expect(page.locator(".channel")).to_have_count(3)
    expect(page.locator("#network-input-source")).to_have_text("batch")
    size = page.evaluate("() => document.getElementById('network-input-picture').width")
    assert size == 64

    page.click("#network-input-steps [data-image='1']")
    expect(page.locator("#network-input-source")).to_have_text("validation 0")
    page.click("#network-input-steps [data-image=batch]")
    expect(page.locator("#network-input-source")).to_have_text("batch")

    marks = page.locator(".mark")
    expect(marks).to_have_count(8)
    marks.first.hover(position={"x": 4, "y": 8})
    expect(page.locator("#tooltip")).to_contain_text("BatchNorm2d")
    page.click("#toggle-modules")
    expect(marks).to_have_count(0)
