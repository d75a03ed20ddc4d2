"""Protects ``bokeh serve viewer`` as ``revacnn view`` does.

The app has Bokeh load this file, unless the command names another ``--auth-module``: the server
then checks each request, and the browser keeps the token in a cookie that no script can read. Bokeh
loads it outside of the app, so its imports are absolute.
"""

from __future__ import annotations

from tornado.web import Finish, RequestHandler
from tornado.websocket import WebSocketHandler

from revacnn_lightning.page_server.access_token import AccessToken
from revacnn_lightning.page_server.bokeh_serve import mark_admitted, refuse_if_forbidden
from revacnn_lightning.page_server.security_headers import set_security_headers
from revacnn_lightning.page_server.sign_in_handler import (
    SignInHandler,
    has_token_cookie,
    set_token_cookie,
)

__all__ = ["LoginHandler", "get_user_async", "login_url"]

login_url = "/login"
USER = "whoever has the token"


class LoginHandler(SignInHandler):
    """The page for signing in, with the headers that ``revacnn view`` sets in its server."""

    def set_default_headers(self) -> None:
        set_security_headers(self)

    def prepare(self) -> None:
        refuse_if_forbidden(self)


async def get_user_async(handler: RequestHandler) -> str | None:
    """Return a name if the request has the token or its cookie; end it if it must not be answered.

    Bokeh calls ``get_user`` of a websocket only once it is open, when no header can be set.

    Raises:
        Finish: it has been ended.
    """
    set_security_headers(handler)
    refuse_if_forbidden(handler)
    if AccessToken.of_this_process().is_in_arguments(handler.request.query_arguments):
        set_token_cookie(handler)
        mark_admitted(handler.request)
        return USER
    if has_token_cookie(handler):
        mark_admitted(handler.request)
        return USER
    if isinstance(handler, WebSocketHandler):  # Bokeh would open it, and then fail
        handler.set_status(403)
        raise Finish
    return None
