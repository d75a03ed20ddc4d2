"""Checks whether the page is served, and opens with the token in its address."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from typing import Any

from revacnn_lightning.client.doctor.finding import Finding

__all__ = ["check_page"]

CONNECT_SECONDS = 2.0


def check_page(address: str, *, is_expected: bool) -> Finding:
    """Return a finding that says whether a server answers at the address of the page.

    The token is not in the finding, which is shown to others.

    Args:
        is_expected: whether the user has named the address.
    """
    shown, _, query = address.partition("?")
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(address, timeout=CONNECT_SECONDS) as reply:
            return Finding("page", "ok", f"{shown} answers with status {reply.status}")
    except urllib.error.HTTPError as error:
        error.close()
        return _describe_status(shown, error.code, has_token="token=" in query)
    except (OSError, ValueError) as error:
        return _describe_failure(shown, error, is_expected=is_expected)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as it is: the page itself takes a server long to create."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _describe_status(shown: str, code: int, *, has_token: bool) -> Finding:
    if code < 400:  # the page without its token
        text = f"{shown} answers" + (", and accepts this token" if has_token else "")
        return Finding("page", "ok", text)
    if code not in (401, 403):
        return Finding("page", "problem", f"{shown} answers with status {code}")
    advice = "open the complete address that `revacnn view` has printed"
    if not has_token:
        return Finding("page", "ok", f"{shown} answers, and asks for its token", advice)
    text = f"{shown} answers, and refuses this token: each start of the viewer makes a new one"
    return Finding("page", "problem", text, advice)


def _describe_failure(shown: str, error: Exception, *, is_expected: bool) -> Finding:
    if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
        text = f"{shown} answers with a certificate that this machine does not know"
        advice = "compare its fingerprint in the browser with the one that the viewer has printed"
        return Finding("page", "note", text, advice)
    if is_expected:
        text = f"{shown} does not answer ({error})"
        return Finding("page", "problem", text, "start it with: revacnn view")
    return Finding("page", "note", f"no page is served at {shown}", "revacnn view serves one")
