"""Whether the page is served, and opens with its token."""

from __future__ import annotations

import http.server
import ssl
import threading
import urllib.error

import pytest

from revacnn_lightning.client.doctor import page
from revacnn_lightning.client.doctor.page import check_page


class Page(http.server.BaseHTTPRequestHandler):
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.send_header("Location", "/viewer")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("query", "code", "status", "text"),
    [
        ("", 200, "ok", "answers with status 200"),
        ("", 302, "ok", "answers"),
        ("", 403, "ok", "asks for its token"),
        ("", 500, "problem", "status 500"),
        ("?token=secret", 303, "ok", "accepts this token"),
        ("?token=secret", 403, "problem", "refuses this token"),
    ],
)
def test_a_page_that_answers(
    query: str, code: int, status: str, text: str, monkeypatch: pytest.MonkeyPatch
):
    """A wrong token was said to be fine, and the token was in what is shown to others."""
    monkeypatch.setattr(Page, "code", code)
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        finding = check_page(f"http://127.0.0.1:{server.server_port}/{query}", is_expected=True)
        thread.join()
    assert finding.status == status
    assert text in finding.text
    assert "secret" not in finding.text + finding.advice


def test_a_page_that_does_not_answer_is_a_problem_only_if_it_was_named():
    assert check_page("http://127.0.0.1:9/", is_expected=False).status == "note"
    assert check_page("http://127.0.0.1:9/", is_expected=True).status == "problem"


def test_a_self_signed_certificate_is_no_page_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    class Opener:
        def open(self, *_: object, **__: object) -> None:
            raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed"))

    monkeypatch.setattr(page.urllib.request, "build_opener", lambda *_: Opener())
    finding = check_page("https://gpu7:5006/viewer", is_expected=True)
    assert finding.status == "note"
    assert "fingerprint" in finding.advice
