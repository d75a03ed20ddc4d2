"""What a browser without the token gets."""

from __future__ import annotations

import re

import pytest

from revacnn_lightning.page_server.sign_in_page import WRONG_TOKEN, sign_in_page_html
from viewer.rendering.palette import DARK, LIGHT, Palette


def test_the_page_says_what_is_wrong_with_a_token():
    assert 'aria-invalid="false"' in sign_in_page_html()
    refused = sign_in_page_html(f"<b>{WRONG_TOKEN}")
    assert 'aria-invalid="true"' in refused
    assert f"&lt;b&gt;{WRONG_TOKEN}" in refused
    assert "$REVACNN_TOKEN" in refused
    assert 'method="get"' in sign_in_page_html(method="get")


@pytest.mark.parametrize("palette", [DARK, LIGHT], ids=lambda palette: palette.name)
def test_the_colors_are_those_of_the_page(palette: Palette):
    """It had blues and grays of its own."""
    theme = re.search(rf"color-scheme: {palette.name};(.*?)\}}", sign_in_page_html(), re.DOTALL)
    assert theme is not None
    colors = dict(re.findall(r"--([\w-]+): (.*?);", theme[1]))
    assert len(colors) >= 10
    assert colors == {name: getattr(palette, name) for name in colors}
