"""What a page shows of the time before its viewer attached."""

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
    runtime = tmp_path_factory.mktemp("history")
    with training(runtime, "--net", "digits", "--past", "5000"), server(runtime) as address:
        yield address


def test_the_slider_returns_to_the_first_batch(address: str, open_page: Any) -> None:
    page = ready(open_page(address))
    page.wait_for_function("revacnn.parts.timeline.recorded > 100")
    slider, moment = page.locator("#time"), page.locator("#moment")
    assert "gradient" in slider.evaluate("(input) => input.style.background")  # a tick per edit
    slider.fill("0")
    expect(moment).to_contain_text("Batch 1 of")
    expect(moment).to_contain_text("Only layer means are known of that time.")
    page.click("#live")
    expect(moment).to_have_text("live")
