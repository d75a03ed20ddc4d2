"""The page of a network in which no layer is watched offers nothing that cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.viewer.processes import server, training

pytestmark = pytest.mark.browser

# What works without a layer: the choice of the view, and settings of the views to come.
USABLE = {"Graph", "Table", "t-SNE", "UMAP", "PCA", "box", "lasso"}
TITLES = {"Filters", "Filter gradients", "Activation maps", "Activation gradients"}

ENABLED = """() => [...document.querySelectorAll("#network button, #layer-panel button")]
  .filter((button) => button.offsetParent != null && button.ariaDisabled !== "true")
  .map((button) => button.textContent)"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = tmp_path_factory.mktemp("linear")
    with training(runtime, "--net", "linear", "--hz", "5"), server(runtime) as address:
        yield address


def test_without_layers_edits_and_colors_were_enabled(address: str, open_page: Any) -> None:
    page = open_page(address)
    page.wait_for_function("revacnn.parts.header?.watch_refusal")
    page.wait_for_function("document.querySelector('#freeze[aria-disabled=true]') != null")
    assert set(page.evaluate(ENABLED)) == USABLE | TITLES
    page.evaluate("document.querySelector('#price-colors').click()")
    page.wait_for_function("document.querySelector('#notice').textContent.includes('layers=')")
    assert page.locator("#cheapest").is_hidden()
    assert "layers=" in page.inner_text("#network-notice")
    assert "Waiting" not in page.inner_text("#layer-panel")
