"""The secret that opens the page: a token in its address, later a cookie that is derived from it.

The token is random for each server process, unless the user sets ``$REVACNN_TOKEN``. There is no
command-line option for it: other users of the machine can read the arguments of a process.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from revacnn_lightning.errors import RevacnnError

__all__ = ["ARGUMENT", "MIN_LENGTH", "VARIABLE", "AccessToken", "cookie_name"]

VARIABLE = "REVACNN_TOKEN"
ARGUMENT = "token"  # of the page's address
MIN_LENGTH = 16  # characters of a token of the user's own
RANDOM_BYTES = 24

_PORT = re.compile(r":(\d+)$")


class AccessToken:
    """A token, and the cookie that a browser gets for it.

    Attributes:
        text: the token.
        cookie_value: a digest, so that the token cannot be read from a browser's cookies.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.cookie_value = hmac.new(
            text.encode(), b"cookie of the page", hashlib.sha256
        ).hexdigest()

    @classmethod
    def of_this_process(cls) -> AccessToken:
        """Return the same token in each call: ``$REVACNN_TOKEN``, or a random one.

        Raises:
            RevacnnError: ``$REVACNN_TOKEN`` is too short.
        """
        return _token_of_this_process()

    @property
    def query(self) -> str:
        """What the address of the page ends with."""
        return f"{ARGUMENT}={quote(self.text, safe='')}"

    def is_same(self, text: str) -> bool:
        """Return whether a text is the token, in a time that does not depend on the text."""
        return hmac.compare_digest(text.encode(errors="replace"), self.text.encode())

    def is_in_arguments(self, arguments: Mapping[str, Sequence[bytes]]) -> bool:
        """Return whether the arguments of an address contain the token."""
        return any(
            self.is_same(value.decode(errors="replace")) for value in arguments.get(ARGUMENT, ())
        )

    def is_in_cookies(self, cookies: Mapping[str, Any], host: str) -> bool:
        """Return whether a browser has the cookie.

        Args:
            cookies: the cookies of a request, by name, as text or as ``http.cookies.Morsel``.
            host: the Host header of the request.
        """
        cookie = cookies.get(cookie_name(host), "")
        value = str(getattr(cookie, "value", cookie))
        return hmac.compare_digest(value.encode(errors="replace"), self.cookie_value.encode())


def cookie_name(host: str) -> str:
    """Return the name of the cookie: browsers send cookies to all ports of a host.

    Args:
        host: a Host header. With a forwarded port, it has another port than the server.
    """
    port = _PORT.search(host)
    return f"revacnn-access-{port[1] if port else 'default'}"


@lru_cache(maxsize=1)
def _token_of_this_process() -> AccessToken:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return AccessToken(secrets.token_hex(RANDOM_BYTES))
    if len(text) < MIN_LENGTH:
        raise RevacnnError(
            f"${VARIABLE} has {len(text)} characters, at least {MIN_LENGTH} are needed, because "
            "whoever knows it controls the training; unset it to get a random token"
        )
    return AccessToken(text)
