"""Exchanges the token for a cookie, so that the address of the page can be passed on without it."""

from __future__ import annotations

import logging
import re
from urllib.parse import parse_qsl, urlencode

from tornado.web import RequestHandler

from revacnn_lightning.page_server.access_token import ARGUMENT, AccessToken, cookie_name
from revacnn_lightning.page_server.sign_in_page import WRONG_TOKEN, sign_in_page_html

__all__ = ["SignInHandler", "has_token_cookie", "local_path_without_token", "set_token_cookie"]

log = logging.getLogger(__name__)


def has_token_cookie(handler: RequestHandler) -> bool:
    """Return whether the browser has the cookie of this process's token."""
    request = handler.request
    return AccessToken.of_this_process().is_in_cookies(request.cookies, request.host)


def set_token_cookie(handler: RequestHandler) -> None:
    """Give the browser the cookie. It ends with the browser.

    It is sent with links of other sites ("Lax"): a request for the page changes nothing, and links
    to the page can be sent to others. It is sent with no other request of other sites.
    """
    handler.set_cookie(
        cookie_name(handler.request.host),
        AccessToken.of_this_process().cookie_value,
        httponly=True,
        samesite="Lax",
        secure=handler.request.protocol == "https",
    )


def local_path_without_token(uri: str) -> str:
    """Return the path and query of an address on this server, without the token."""
    path, _, query = uri.partition("?")
    arguments = [(name, value) for name, value in parse_qsl(query, True) if name != ARGUMENT]
    # "//host" would be another server, and browsers drop tabs and line breaks.
    path = "/" + re.sub(r"[\x00-\x20]", "", path).lstrip("/\\")
    return f"{path}?{urlencode(arguments)}" if arguments else path


class SignInHandler(RequestHandler):
    """Serves the page for signing in at any path, and at ``/login`` of ``bokeh serve``."""

    def get(self) -> None:
        given = self.get_query_arguments(ARGUMENT)
        token = AccessToken.of_this_process()
        if any(token.is_same(text) for text in given):
            set_token_cookie(self)
            self._open()
        elif given and has_token_cookie(self):  # a bookmark with an old token
            self._open()
        else:
            self._refuse(WRONG_TOKEN if given else "")

    def head(self) -> None:
        self.set_status(403)

    def post(self) -> None:
        if AccessToken.of_this_process().is_same(self.get_body_argument(ARGUMENT, "")):
            set_token_cookie(self)
            self._open()
        else:
            self._refuse(WRONG_TOKEN)

    def _open(self) -> None:
        """Have the browser open what it asked for: ``next`` is what Bokeh calls it."""
        self.set_header("Cache-Control", "no-store")
        self.redirect(
            local_path_without_token(self.get_query_argument("next", self.request.uri or "/")),
            status=303,
        )

    def _refuse(self, problem: str) -> None:
        if problem:
            log.warning("A wrong token was sent from %s", self.request.remote_ip)
        self.set_status(403)
        self.set_header("Cache-Control", "no-store")
        self.finish(sign_in_page_html(problem))
