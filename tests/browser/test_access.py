"""A browser that has not opened the address with the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import wait_without_eval
from tests.viewer.processes import TOKEN, server, training

pytestmark = pytest.mark.browser


def test_the_token_opens_the_page(chromium: Any, tmp_path: Path) -> None:
    with (
        training(tmp_path, "--net", "digits"),
        server(tmp_path) as address,
        chromium.new_context(color_scheme="dark") as context,
    ):
        page = context.new_page()
        wait_without_eval(page)
        page.goto(f"{address}?layer=conv2")
        expect(page.locator("h1")).to_have_text("ReVACNN")
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            assert Axe().run(page).response["violations"] == []
        page.keyboard.press("Tab")
        page.keyboard.insert_text("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the token of this viewer")
        page.fill("input", TOKEN.text)
        page.click("button")
        page.wait_for_function("window.revacnn?.ready")
        assert TOKEN.text not in page.url
        assert "layer=conv2" in page.url
        [cookie] = [one for one in context.cookies() if one["name"].startswith("revacnn-access")]
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Lax"
