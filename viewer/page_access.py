"""Whether a browser may open the page, where the server itself admits everybody."""

from __future__ import annotations

import sys
from typing import Any

from bokeh.document import Document
from bokeh.settings import settings
from jinja2 import Template

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.page_server.access_token import ARGUMENT, AccessToken, cookie_name
from revacnn_lightning.page_server.sign_in_page import WRONG_TOKEN, sign_in_page

__all__ = ["check_auth_module", "cookie_to_set", "is_granted", "let_server_decide", "show_sign_in"]

_has_server_decided = False


def check_auth_module() -> None:
    """Check that ``bokeh serve`` has an authentication module.

    Raises:
        RevacnnError: it has none: everybody who reaches its port would control the training.
    """
    arguments = [one for one in sys.orig_argv if one.startswith("--auth-module")]
    if not arguments and not settings.auth_module():
        raise RevacnnError(
            "--access server leaves access to the server, which checks nobody; start it with "
            "--auth-module FILE, or leave out --access server"
        )


def let_server_decide() -> None:
    """Admit everybody that the server admits.

    ``revacnn view`` and authentication modules of Bokeh's server check requests before the page is
    created.
    """
    global _has_server_decided
    _has_server_decided = True


def is_granted(request: Any) -> bool:
    """Return whether the request for the page has the token or its cookie.

    Args:
        request: of a Bokeh session; None without one.
    """
    if _has_server_decided:
        return True
    if request is None:
        return False
    token = AccessToken.of_this_process()
    return token.is_in_arguments(request.arguments) or token.is_in_cookies(
        request.cookies, _host(request)
    )


def cookie_to_set(request: Any) -> str:
    """Return the cookie that the page has to set itself, as "name=value"; "" for none.

    An app of ``bokeh serve`` cannot set cookies in its response.
    """
    if _has_server_decided or ARGUMENT not in request.arguments:
        return ""
    return f"{cookie_name(_host(request))}={AccessToken.of_this_process().cookie_value}"


def show_sign_in(document: Document, request: Any) -> None:
    """Have a document say how to get in, and nothing else."""
    has_token = request is not None and ARGUMENT in request.arguments
    page = sign_in_page(WRONG_TOKEN if has_token else "", method="get")
    document.template = Template("{{ sign_in_page }}")
    document.template_variables["sign_in_page"] = page


def _host(request: Any) -> str:
    return str(request.headers.get("Host", ""))
