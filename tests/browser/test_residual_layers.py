"""Layers of a residual network, inserted and removed by click in a real training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import READY
from tests.viewer.processes import process, server

pytestmark = pytest.mark.browser

LAYERS = "revacnn.parts.network_layout.layers.map(({name}) => name)"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("residual")
    network = process(runtime, "tests.browser.residual_training", OMP_NUM_THREADS="1")
    with network, server(runtime) as address:
        yield address


@pytest.fixture
def page(address: str, open_page: Any) -> Any:
    page = open_page(address, viewport={"width": 1680, "height": 960})
    page.wait_for_function(READY)
    return page


def wait_for_layers(page: Any, names: list[str]) -> None:
    page.wait_for_function(f"(names) => String({LAYERS}) == String(names)", arg=names)


def choose(page: Any, layer: str, item: str) -> Any:
    """Choose an item of a layer's menu; return the staged row once its plan has arrived."""
    page.locator(f".column[data-layer='{layer}'] button.menu").click()
    page.locator("#layer-menu").get_by_text(item).click()
    row = page.locator("#staging .row[data-plan=planned]")
    expect(row).to_be_visible()
    return row


def apply(page: Any) -> Any:
    page.click("#staging button.apply")
    reply = page.locator("#reply[data-state=applied]")
    expect(reply).to_be_visible()
    return reply


def test_a_block_is_inserted_and_removed_by_click(page: Any) -> None:
    before = page.evaluate(LAYERS)
    assert before == ["stem", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2"]
    row = choose(page, "block1.conv2", "Insert a residual block")
    expect(row.locator(".title")).to_have_text("a residual block after block1.conv2")
    detail = row.locator(".detail")  # the plan before anything is changed
    expect(detail).to_contain_text("parameters (+")
    expect(detail).to_contain_text("multiply-accumulates (+")
    expect(detail).to_contain_text("output unchanged")
    expect(apply(page)).to_contain_text("the output is unchanged")
    inserted = "block1.conv2.inserted1.conv"
    wait_for_layers(page, [*before[:3], inserted, *before[3:]])
    expect(page.locator("#layer")).to_have_text(inserted)  # its panel opens
    row = choose(page, inserted, "Remove the layer")
    expect(row.locator(".detail")).to_contain_text("output may change")
    apply(page)
    wait_for_layers(page, before)


def test_a_conv_within_a_residual_branch_is_removed_and_returns_with_undo(page: Any) -> None:
    before = page.evaluate(LAYERS)
    row = choose(page, "block2.conv1", "Remove the layer")
    expect(row.locator(".detail")).to_contain_text("parameters (−")
    expect(row.locator(".coupling")).to_contain_text("an identity takes its place")
    apply(page)
    wait_for_layers(page, [name for name in before if name != "block2.conv1"])
    page.keyboard.press("u")
    wait_for_layers(page, before)
