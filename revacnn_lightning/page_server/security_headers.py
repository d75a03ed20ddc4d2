"""What a browser lets the page do, and other pages do with it: headers of every response."""

from __future__ import annotations

import re
import secrets

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform, RequestHandler

from revacnn_lightning.page_server.access_token import ARGUMENT

__all__ = ["NONCE", "add_nonce_to_scripts", "security_headers_transform", "set_security_headers"]

# Marks the scripts that the server writes into its pages. The scripts of an attacker, for example
# in the name of a layer, do not have it, and they do not run.
NONCE = secrets.token_urlsafe(16)

_SCRIPT = re.compile(r"^(\s*)<script(?=[\s>])", re.MULTILINE)
_HOST = re.compile(r"[\w.:\[\]-]+", re.ASCII)


def add_nonce_to_scripts(script_elements: str) -> str:
    """Return script elements, each at the start of a line, marked as written by the server."""
    return _SCRIPT.sub(rf'\1<script nonce="{NONCE}"', script_elements)


def content_security_policy(host: str, *, may_be_framed: bool = False) -> str:
    """Return a policy that allows what the page needs, from its own server only.

    Args:
        host: the Host header of the request.
        may_be_framed: whether other pages, such as notebooks, may embed the page.
    """
    # "'self'" includes websockets only in newer browsers.
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    directives = [
        "default-src 'none'",
        f"script-src 'self' 'nonce-{NONCE}'",
        "worker-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Bokeh sets styles of its elements
        "img-src 'self' data: blob:",
        f"connect-src 'self'{sockets}",
        "form-action 'self'",
        "base-uri 'none'",
    ]
    if not may_be_framed:
        directives.append("frame-ancestors 'none'")
    return "; ".join(directives)


def security_headers_transform(*, may_be_framed: bool = False) -> type[OutputTransform]:
    """Return a transform that sets the security headers of every response.

    It is for ``tornado.web.Application.add_transform``.

    Args:
        may_be_framed: whether other pages may embed the page by an address with a token. Otherwise
            a page of another port of this machine, which gets the cookie, could embed it.
    """

    class SecurityHeaders(OutputTransform):
        def __init__(self, request: HTTPServerRequest) -> None:
            is_framable = may_be_framed and ARGUMENT in request.query_arguments
            self._headers = _headers(request.host, is_framable)

        def transform_first_chunk(
            self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
        ) -> tuple[int, HTTPHeaders, bytes]:
            for name, value in self._headers.items():
                headers[name] = value
            return status_code, headers, chunk

    return SecurityHeaders


def set_security_headers(handler: RequestHandler) -> None:
    """Set the headers of one response."""
    for name, value in _headers(handler.request.host, may_be_framed=False).items():
        handler.set_header(name, value)


def _headers(host: str, may_be_framed: bool) -> dict[str, str]:
    headers = {
        "Content-Security-Policy": content_security_policy(host, may_be_framed=may_be_framed),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",  # forms would send a null origin with "no-referrer"
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if may_be_framed:
        return headers
    return {**headers, "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"}
