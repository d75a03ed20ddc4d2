"""Tests of ``viewer/components/statistics_pane.py``."""

from __future__ import annotations

from bokeh.document import Document

from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.tab.page import Page


def test_the_charts_of_the_statistics_pane_are_made_when_it_is_opened(
    follower: InProcessFollower,
) -> None:
    """They were half of the models that a page waited for before its first picture."""
    page, document = Page(follower), Document()
    page.open(document)
    assert document.get_model_by_name("bars") is None
    n_models = len(document.models)
    send_command(page.tab, "set_pane", option="statistics")
    for _ in page.components.shown_charts():
        page.components.update_next_chart()
    bars, place = (document.get_model_by_name(name) for name in ("bars", "bars_place"))
    assert place is not None
    assert place.children == [bars]
    assert len(document.models) > 1.4 * n_models
    assert page.components.shown_charts() == page.components.shown_charts()
