"""The parameters of the page's address, a link to what the page shows."""

from __future__ import annotations

from typing import Any

from ..tab.requested_view import address_parameters
from .html_panel import HtmlDataPanel

__all__ = ["UrlParametersSender"]


class UrlParametersSender(HtmlDataPanel):
    """Sends the parameters of the address that the browser shows for this tab."""

    part = "address"

    def content(self) -> dict[str, Any]:
        return address_parameters(self.tab)
