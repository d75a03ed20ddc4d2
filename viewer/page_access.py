"""Whether a browser may open the page, where the server itself admits everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bokeh.document import Document
from bokeh.settings import settings
from jinja2 import Template

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.page_server.access_token import ARGUMENT, AccessToken, cookie_name
from revacnn_lightning.page_server.bokeh_serve import (
    bokeh_option_values,
    is_admitted,
    why_forbidden,
)
from revacnn_lightning.page_server.sign_in_page import WRONG_TOKEN, sign_in_page_html

__all__ = [
    "cookie_for_page_to_set",
    "is_access_granted",
    "let_server_check_access",
    "require_auth_module",
    "set_default_auth_module",
    "show_sign_in",
]

AUTH_MODULE = Path(__file__).with_name("auth.py")

_has_server_decided = False
_does_server_set_cookie = False


def require_auth_module() -> None:
    """Raise an error unless ``bokeh serve`` has an authentication module.

    Raises:
        RevacnnError: it has none: everybody who reaches its port would control the training.
    """
    if not _auth_module():
        raise RevacnnError(
            "--access server leaves access to the server, which checks nobody; start it with "
            "--auth-module FILE, or leave out --access server"
        )


def set_default_auth_module() -> None:
    """Have ``bokeh serve`` check each request with `AUTH_MODULE`, unless it has another one.

    Bokeh reads this setting once it has loaded the app.
    """
    global _does_server_set_cookie
    if not _auth_module():
        settings.auth_module = str(AUTH_MODULE)
    _does_server_set_cookie = Path(_auth_module()).resolve() == AUTH_MODULE.resolve()


def _auth_module() -> str:
    """Return the authentication module of ``bokeh serve``; "" if it has none."""
    given = bokeh_option_values("--auth-module")
    return given[-1] if given else settings.auth_module() or ""


def let_server_check_access() -> None:
    """Leave it to the server to check requests, and admit all that reach the page.

    ``revacnn view`` and authentication modules of Bokeh's server check requests before the page is
    created.
    """
    global _has_server_decided
    _has_server_decided = True


def is_access_granted(request: Any) -> bool:
    """Return whether the request for the page has the token or its cookie.

    Args:
        request: the request of a Bokeh session; None without a session.
    """
    if _has_server_decided:
        return True
    if request is None or why_forbidden(request):
        return False
    if is_admitted(request):
        return True
    token = AccessToken.of_this_process()
    return token.is_in_arguments(request.arguments) or token.is_in_cookies(
        request.cookies, _host(request)
    )


def cookie_for_page_to_set(request: Any) -> str:
    """Return the cookie that the page has to set itself, as "name=value"; "" for none.

    An app of ``bokeh serve`` cannot set cookies in its response. Our authentication module does.
    """
    if _has_server_decided or _does_server_set_cookie or ARGUMENT not in request.arguments:
        return ""
    return f"{cookie_name(_host(request))}={AccessToken.of_this_process().cookie_value}"


def show_sign_in(document: Document, request: Any) -> None:
    """Fill a document with the page that asks for the token, and nothing else."""
    has_token = request is not None and ARGUMENT in request.arguments
    exposure = "" if request is None else why_forbidden(request)
    page = sign_in_page_html(exposure or (WRONG_TOKEN if has_token else ""), method="get")
    document.template = Template("{{ sign_in_page }}")
    document.template_variables["sign_in_page"] = page


def _host(request: Any) -> str:
    return str(request.headers.get("Host", ""))
