from __future__ import annotations

from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components.hovered_filter import HoveredFilterStatistics
from viewer.tab.tab_state import TabState


def test_the_numbers_under_the_pointer_stayed_those_of_the_first_batch(
    tab: TabState, follower: InProcessFollower
) -> None:
    part = HoveredFilterStatistics(tab)
    part.update()
    assert part.source.data == {}
    send_command(tab, "hover_filter", layer=1, first=3)
    for _ in range(2):
        follower.train()
        assert part.update()
        newest = {name: float(tab.layer_values(name, 1)[3]) for name in ("gradient", "activation")}
        assert part.source.data == {"layer": 1, "filter": 3, **newest}
    assert not part.update()
    send_command(tab, "hover_filter")
    assert part.update()
    assert part.source.data == {}


def test_a_past_batch_has_the_numbers_of_that_batch(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.train(10)
    part = HoveredFilterStatistics(tab)
    send_command(tab, "hover_filter", layer=1, first=3)
    send_command(tab, "show_moment", row=2)
    part.update()
    shown = part.source.data["gradient"]
    follower.train(2)
    part.update()
    assert part.source.data["gradient"] == shown
