"""Bokeh's server of the page, behind the gate."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from revacnn_lightning.errors import MissingPackageError, RevacnnError
from revacnn_lightning.page_server.access_token import AccessToken
from revacnn_lightning.page_server.allowed_hosts import AllowedHosts, host_names_for, is_loopback
from revacnn_lightning.page_server.certificate import ensure_self_signed_certificate, tls_context

__all__ = [
    "DEFAULT_PORT",
    "PageServer",
    "ServerOptions",
    "bind_page_server",
    "require_tls_if_public",
]

DEFAULT_PORT = 5006
PATH = "/viewer"
MAX_BODY_BYTES = 2**16  # of a request; that of the page for signing in is the only one with a body
COOKIES = ["revacnn-theme", "revacnn-hints"]  # those that the page itself reads
HEADERS = ["Host"]


class ServerOptions(Struct, frozen=True):
    """The options of the page's server; see ``revacnn view --help``."""

    host: str = "127.0.0.1"
    port: int | None = None  # None: the default one, or a free one
    allowed_origins: Sequence[str] = ()
    may_be_framed: bool = False
    certificate: Path | None = None
    key: Path | None = None
    is_self_signed: bool = False

    @property
    def has_tls(self) -> bool:
        return self.is_self_signed or self.certificate is not None


class PageServer(Struct, frozen=True):
    """A server whose sockets listen. It answers requests in `run_until_shutdown`.

    Its address contains the token.
    """

    server: Any  # bokeh.server.server.BaseServer
    address: str
    certificate: Path | None

    def run_until_shutdown(self) -> None:
        """Serve until Ctrl-C or SIGTERM.

        Bokeh's own method prints first, and a server whose output is closed would not end.
        """
        loop = self.server.io_loop
        if sys.platform != "win32":
            loop.asyncio_loop.add_signal_handler(signal.SIGTERM, loop.stop)
        with contextlib.suppress(KeyboardInterrupt):
            loop.start()
        self.server.stop()


def bind_page_server(
    app_folder: Path, app_arguments: Sequence[str], options: ServerOptions
) -> PageServer:
    """Return a server of the page that listens, and answers requests once it runs.

    Only those with the token can open the page; see `PageServer.run_until_shutdown`.

    Args:
        app_folder: the folder of the Bokeh app.
        app_arguments: the command-line arguments of the Bokeh app.
        options: the options of the server.

    Raises:
        RevacnnError: the options are unsafe or unusable, or the port is in use.
    """
    require_tls_if_public(options)
    token = AccessToken.of_this_process()
    names = host_names_for(options.host)
    hosts = AllowedHosts(names, options.allowed_origins)
    certificate, context = _tls(options, sorted(hosts.names))
    page = _page(app_folder, app_arguments, hosts)
    sockets = _listen(options)
    port = sockets[0].getsockname()[1]
    scheme = "http" if context is None else "https"
    address = f"{scheme}://{names[0]}:{port}{PATH}?{token.query}"
    return PageServer(_serve(page, hosts, sockets, context, options), address, certificate)


def require_tls_if_public(options: ServerOptions) -> None:
    """Check that the server has TLS if other machines can reach it.

    Raises:
        RevacnnError: it has none, or its TLS options conflict. The message says what works.
    """
    if options.key is not None and options.certificate is None:
        raise RevacnnError("--keyfile requires --certfile, the certificate of this key")
    if options.is_self_signed and options.certificate is not None:
        raise RevacnnError("--self-signed makes a certificate; use either it or --certfile")
    if options.has_tls or is_loopback(options.host):
        return
    port = options.port or DEFAULT_PORT
    host = options.host or "0.0.0.0"
    raise RevacnnError(
        f"with --host {host}, other machines reach the page, which requires encryption:\n"
        f"  revacnn view --host {host} --port {port} --self-signed\n"
        "Or serve it on this machine only, and forward its port from the other machine:\n"
        f"  revacnn view --port {port}\n"
        f"  ssh -N -L {port}:127.0.0.1:{port} {socket.gethostname()}"
    )


def _tls(options: ServerOptions, names: Sequence[str]) -> tuple[Path | None, ssl.SSLContext | None]:
    """Return the certificate and the context of the server, if it is to use TLS."""
    if not options.has_tls:
        return None, None
    file = options.certificate or ensure_self_signed_certificate(names)
    return file, tls_context(file, options.key)


def _page(folder: Path, arguments: Sequence[str], hosts: AllowedHosts) -> Any:
    """Return Bokeh's Tornado application of the page."""
    try:
        from bokeh.application import Application
        from bokeh.application.handlers import DirectoryHandler
        from bokeh.server.tornado import BokehTornado
        from bokeh.settings import settings
    except ImportError as error:
        raise MissingPackageError(
            "the viewer requires Bokeh: pip install 'revacnn-lightning[viewer]'"
        ) from error
    settings.resources = "server"  # the page loads nothing from other servers
    handler = DirectoryHandler(filename=str(folder), argv=["--access", "gate", *arguments])
    return BokehTornado(
        {PATH: Application(handler)},
        extra_websocket_origins=[f"{name}:*" for name in hosts.names],
        secret_key=secrets.token_bytes(32),
        sign_sessions=True,  # nobody can make a session but the page
        include_cookies=COOKIES,  # the page contains what it receives of the request
        include_headers=HEADERS,
    )


def _listen(options: ServerOptions) -> list[socket.socket]:
    """Return sockets that listen on a free port, or on that of the options."""
    from tornado.netutil import bind_sockets

    ports = [DEFAULT_PORT, 0] if options.port is None else [options.port]
    for port in ports:
        try:
            return bind_sockets(port, options.host.strip("[]"))
        except OSError as error:
            if port == ports[-1]:
                raise RevacnnError(
                    f"cannot serve on {options.host}:{port}: {error}; choose another --port"
                ) from error
    raise AssertionError("unreachable: the last port either serves or raises")


def _serve(
    page: Any,
    hosts: AllowedHosts,
    sockets: list[socket.socket],
    context: ssl.SSLContext | None,
    options: ServerOptions,
) -> Any:
    from bokeh.server.server import BaseServer
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop

    from revacnn_lightning.page_server.gate import access_router

    router = access_router(page, hosts, PATH, may_be_framed=options.may_be_framed)
    http = HTTPServer(router, ssl_options=context, max_body_size=MAX_BODY_BYTES)
    http.add_sockets(sockets)
    server = BaseServer(IOLoop.current(), page, http)
    server.start()
    return server
