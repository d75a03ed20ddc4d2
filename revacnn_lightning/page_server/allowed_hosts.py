"""The names under which a browser may use the page.

A page of the web can have its own name point to this machine (DNS rebinding). Its requests then
carry that name as ``Host``. Requests of pages of other origins carry an ``Origin``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from revacnn_lightning.errors import RevacnnError

__all__ = ["AllowedHosts", "host_names_for", "is_loopback"]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ALL_ADDRESSES = ("", "0.0.0.0", "::", "[::]")

_HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>\d{1,5}))?", re.ASCII)


class AllowedHosts:
    """The hosts that may appear in a request.

    Args:
        own: names of the server; any port, because the port may be forwarded.
        origins: further hosts of the user, as HOST or HOST:PORT.

    Attributes:
        names: all names, without ports.

    Raises:
        RevacnnError: one of the origins is not a host.
    """

    def __init__(self, own: Sequence[str] = LOOPBACK, origins: Sequence[str] = ()) -> None:
        self._origins = frozenset(_parse_origin(origin) for origin in origins)
        self.names = frozenset(own) | {_split(origin)[0] for origin in self._origins}

    def is_allowed_host(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        return _split(host.lower())[0] in self.names

    def is_allowed_origin(self, origin: str, host: str) -> bool:
        """Return whether a page of an origin may use the server.

        Args:
            origin: the Origin header of a request.
            host: the Host header of the same request.
        """
        try:
            source = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(source) and (source == host.lower() or source in self._origins)


def _split(host: str) -> tuple[str, str]:
    """Return the name and the port of a host; two empty texts if it is none."""
    match = _HOST.fullmatch(host)
    return (match["name"], match["port"] or "") if match else ("", "")


def _parse_origin(text: str) -> str:
    """Return the host of an origin; a scheme before it is ignored."""
    host = text.lower().removeprefix("http://").removeprefix("https://").rstrip("/")
    if not _split(host)[0]:
        raise RevacnnError(f"--allow-origin {text}: expected HOST or HOST:PORT, as in gpu7:5006")
    return host


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches a server on this address."""
    if address in ALL_ADDRESSES:
        return False
    try:
        found = socket.getaddrinfo(address.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RevacnnError(f"cannot serve on {address}: {error}; choose another --host") from error
    return all(ipaddress.ip_address(str(each[4][0]).split("%")[0]).is_loopback for each in found)


def host_names_for(address: str) -> tuple[str, ...]:
    """Return the host names of a server that listens on an address, the one to print first."""
    if is_loopback(address):
        return tuple(dict.fromkeys((_bracketed(address), *LOOPBACK)))
    own = (socket.gethostname().lower(), socket.getfqdn().lower())
    specific = () if address in ALL_ADDRESSES else (_bracketed(address),)
    return tuple(dict.fromkeys((*specific, *own, *LOOPBACK)))


def _bracketed(address: str) -> str:
    plain = address.lower().strip("[]")
    return f"[{plain}]" if ":" in plain else plain
