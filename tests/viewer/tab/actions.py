"""What tests do with a tab: send commands like the page does, and let replies arrive."""

from __future__ import annotations

from typing import Any

from tests.viewer.conftest import InProcessFollower
from viewer.tab.commands import perform_command
from viewer.tab.page_link import PageCommand
from viewer.tab.tab_state import TabState


def send_command(tab: TabState, name: str, /, **args: Any) -> None:
    """Perform a command of the page."""
    perform_command(tab, PageCommand(name, args))


def deliver_replies(tab: TabState, follower: InProcessFollower, rounds: int = 6) -> None:
    """Deliver all replies. Each round may lead to further requests."""
    for _ in range(rounds):
        follower.deliver()
        tab.update()
