"""Which requests the page answers under ``bokeh serve``, whose options it reads but cannot choose.

By default, Bokeh's server listens on all interfaces without encryption. Its
authentication module (``viewer/auth.py``) sees the requests for the page and its websocket, not
those for files, which contain nothing of any run.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from functools import lru_cache
from itertools import pairwise
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import Finish, RequestHandler

from revacnn_lightning.page_server.allowed_hosts import AllowedHosts, host_names_for
from revacnn_lightning.page_server.server import COOKIES

__all__ = [
    "bokeh_option_values",
    "cookies_and_headers_for_session",
    "is_admitted",
    "mark_admitted",
    "refuse_if_forbidden",
    "why_forbidden",
]

DEFAULT_PORT = "5006"
ADMITTED = "revacnn_is_admitted"  # attribute of a request
WRONG_HOST = (
    "This viewer is not available by this name, or not to this page. Open the address that the "
    "server has printed, or start it with --allow-websocket-origin HOST[:PORT].\n"
)


def bokeh_option_values(option_name: str) -> list[str]:
    """Return the values that an option of ``bokeh serve`` has on the command line."""
    own = sys.orig_argv
    if "--args" in own:  # options of the app follow
        own = own[: own.index("--args")]
    values = [
        one.removeprefix(f"{option_name}=") for one in own if one.startswith(f"{option_name}=")
    ]
    return values + [value for one, value in pairwise(own) if one == option_name]


def mark_admitted(request: HTTPServerRequest) -> None:
    """Mark a request as checked by the authentication module."""
    setattr(request, ADMITTED, True)


def is_admitted(request: Any) -> bool:
    """Return whether the authentication module has admitted a request."""
    return getattr(request, ADMITTED, None) is True


def cookies_and_headers_for_session(request: HTTPServerRequest) -> dict[str, Any]:
    """Return the cookies and headers of a request that Bokeh passes to the page's session.

    They exclude the access cookie. If no authentication module has checked the request, the result
    is empty: Bokeh then passes all cookies, with which the session checks the request itself.
    """
    if not is_admitted(request):
        return {}
    cookies = {name: one.value for name, one in request.cookies.items() if name in COOKIES}
    return {"cookies": cookies, "headers": {"Host": request.host}}


def refuse_if_forbidden(handler: RequestHandler) -> None:
    """Answer a request that the page must not answer with status 403 and a reason.

    Raises:
        Finish: the request is answered.
    """
    if reason := why_forbidden(handler.request):
        handler.set_status(403)
        handler.set_header("Content-Type", "text/plain; charset=utf-8")
        raise Finish(reason)


def why_forbidden(request: Any) -> str:
    """Return why the page must not answer a request, and what to do about it; "" if it may.

    Args:
        request: a request of Tornado, or what a Bokeh session keeps of it.
    """
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    hosts = _allowed_hosts()
    if not hosts.is_allowed_host(host):
        return WRONG_HOST
    if origin is not None and not hosts.is_allowed_origin(origin, host):
        return WRONG_HOST
    return "" if _has_tls() or _is_from_this_machine(request) else _unencrypted()


def _unencrypted() -> str:
    port = (bokeh_option_values("--port") or [DEFAULT_PORT])[-1]
    return (
        "This viewer is served without encryption, so it answers requests of its own machine only. "
        "Serve it with encryption:\n"
        f"  revacnn view --host 0.0.0.0 --port {port} --self-signed\n"
        "Or forward its port to your machine:\n"
        f"  ssh -N -L {port}:127.0.0.1:{port} {socket.gethostname()}\n"
    )


@lru_cache(maxsize=1)
def _allowed_hosts() -> AllowedHosts:
    from bokeh.settings import settings

    address = (bokeh_option_values("--address") or [""])[-1]
    origins = bokeh_option_values("--allow-websocket-origin") or settings.allowed_ws_origin()
    # A pattern allows websockets, for which Bokeh needs it, and no name of this server.
    return AllowedHosts(host_names_for(address), [one for one in origins or () if "*" not in one])


def _has_tls() -> bool:
    from bokeh.settings import settings

    return bool(bokeh_option_values("--ssl-certfile") or settings.ssl_certfile())


def _is_from_this_machine(request: Any) -> bool:
    """Return whether the connection is: with --use-xheaders, the request only says where from."""
    if bokeh_option_values("--unix-socket"):
        return True
    context = getattr(getattr(request, "connection", None), "context", None)
    address, *_ = getattr(context, "address", None) or (getattr(request, "remote_ip", ""),)
    try:
        peer = ipaddress.ip_address(str(address).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return bool((mapped or peer).is_loopback)
