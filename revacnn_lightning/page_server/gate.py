"""What comes before Bokeh's server: it receives only requests that may use the page.

All of Bokeh's handlers are behind the gate: the page, its files, its websocket, and those of other
ways to embed an app, which the page does not use.
"""

from __future__ import annotations

import logging

from tornado.httputil import HTTPServerRequest
from tornado.routing import AnyMatches, Matcher, Rule, RuleRouter
from tornado.web import Application, RequestHandler

from revacnn_lightning.page_server.access_token import ARGUMENT, AccessToken
from revacnn_lightning.page_server.allowed_hosts import AllowedHosts
from revacnn_lightning.page_server.security_headers import security_headers_transform
from revacnn_lightning.page_server.sign_in_handler import SignInHandler

__all__ = ["access_router"]

log = logging.getLogger(__name__)

FRAMES = ("iframe", "frame", "embed", "object")  # values of Sec-Fetch-Dest


def access_router(
    page: Application, hosts: AllowedHosts, path: str, *, may_be_framed: bool
) -> RuleRouter:
    """Return a router that passes requests to the page only if they may use it.

    Other requests get the page for signing in, or a refusal.

    Args:
        page: Bokeh's server.
        hosts: the names of this server.
        path: the path of the page.
        may_be_framed: whether other pages, such as notebooks, may embed the page.
    """
    refusal = Application([(".*", RefusalHandler)], log_function=_log_nothing)
    sign_in = Application([(".*", SignInHandler)], log_function=_log_nothing)
    for application in (page, refusal, sign_in):
        application.add_transform(security_headers_transform(may_be_framed=may_be_framed))
    rules = [Rule(HasForeignHostOrOrigin(hosts), refusal)]
    if may_be_framed:
        rules.append(Rule(IsAllowedInFrame(path), page))
    return RuleRouter([*rules, Rule(NeedsSignIn(), sign_in), Rule(AnyMatches(), page)])


class HasForeignHostOrOrigin(Matcher):
    """Matches requests with a Host header of another server, or from a page of another origin."""

    def __init__(self, hosts: AllowedHosts) -> None:
        self._hosts = hosts

    def match(self, request: HTTPServerRequest) -> dict[str, str] | None:
        origin = request.headers.get("Origin")
        if not self._hosts.is_allowed_host(request.host):
            return {}
        if origin is not None and not self._hosts.is_allowed_origin(origin, request.host):
            return {}
        return None


class NeedsSignIn(Matcher):
    """Matches requests without the cookie, and those with a token, which get the cookie for it."""

    def match(self, request: HTTPServerRequest) -> dict[str, str] | None:
        has_cookie = AccessToken.of_this_process().is_in_cookies(request.cookies, request.host)
        return None if has_cookie and ARGUMENT not in request.query_arguments else {}


class IsAllowedInFrame(Matcher):
    """Matches requests that a page in a frame may make, where browsers send no cookie.

    A notebook has another origin. The page is therefore served for the token, at each request; its
    files, which contain nothing of any run, to everybody; and its websocket for a session that
    Bokeh has signed for the page.
    """

    def __init__(self, page_path: str) -> None:
        self._page_path = page_path

    def match(self, request: HTTPServerRequest) -> dict[str, str] | None:
        is_file = request.path.startswith(("/static/", f"{self._page_path}/static/"))
        if is_file or request.path == f"{self._page_path}/ws":
            return {}
        if request.path != self._page_path or request.headers.get("Sec-Fetch-Dest") not in FRAMES:
            return None
        is_open = AccessToken.of_this_process().is_in_arguments(request.query_arguments)
        return {} if is_open else None


class RefusalHandler(RequestHandler):
    """Refuses a request with a foreign host or origin, and says what to do."""

    def prepare(self) -> None:
        origin = self.request.headers.get("Origin")
        source = f"a page of {origin}" if origin else "a browser"
        log.warning("Refused a request of %s for %s", source, self.request.host)
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(
            "This viewer is not available by this name, or not to this page. Open the address "
            "that the viewer has printed, or start it with --allow-origin HOST[:PORT].\n"
        )


def _log_nothing(handler: RequestHandler) -> None:
    """Keep tokens out of the log: Tornado's would contain addresses with their arguments."""
