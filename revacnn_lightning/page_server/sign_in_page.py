"""The page that a browser without the token gets. It shows nothing of any run."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from revacnn_lightning.page_server.access_token import ARGUMENT, VARIABLE

__all__ = ["WRONG_TOKEN", "sign_in_page_html"]

WRONG_TOKEN = "This is not the token of this viewer. A new one is made at each start of the viewer."

_TEMPLATE = Path(__file__).with_name("sign_in.html")


def sign_in_page_html(problem: str = "", *, method: str = "post") -> str:
    """Return the page as HTML.

    Args:
        problem: what was wrong with the last attempt.
        method: how the form sends the token to the page's own address: "post", or "get" to a
            server that cannot receive a form.
    """
    text = _TEMPLATE.read_text(encoding="utf-8")
    return Template(text).substitute(
        argument=ARGUMENT,
        variable=VARIABLE,
        method=method,
        problem=escape(problem),
        is_wrong=str(bool(problem)).lower(),
    )
