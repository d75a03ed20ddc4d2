"""Protects ``bokeh serve viewer`` as ``revacnn view`` does.

``bokeh serve viewer --address 127.0.0.1 --auth-module viewer/auth.py``: the server then checks each
request, and the browser keeps the token in a cookie that no script can read. Bokeh loads this file
outside of the app, so its imports are absolute.
"""

from __future__ import annotations

from tornado.web import RequestHandler

from revacnn_lightning.page_server.access_token import AccessToken
from revacnn_lightning.page_server.security_headers import set_security_headers
from revacnn_lightning.page_server.sign_in_handler import SignInHandler, has_cookie, set_cookie

__all__ = ["LoginHandler", "get_user", "login_url"]

login_url = "/login"


class LoginHandler(SignInHandler):
    """The page for signing in, with the headers that ``revacnn view`` sets in its server."""

    def set_default_headers(self) -> None:
        set_security_headers(self)


def get_user(handler: RequestHandler) -> str | None:
    """Return a name if the request has the token or its cookie."""
    set_security_headers(handler)
    if AccessToken.of_this_process().is_in_arguments(handler.request.query_arguments):
        set_cookie(handler)
        return "user"
    return "user" if has_cookie(handler) else None
